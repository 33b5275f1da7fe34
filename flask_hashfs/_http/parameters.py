"""The parameters of a header such as Content-Disposition, read in time that grows with its length.

They mean what they mean to ``werkzeug.http.parse_options_header``: invalid ones are left out,
RFC 2231 continuations are joined, ``name*`` is percent-decoded. Werkzeug's looks at a quoted value
character by character, and at each parameter and percent escape in Python: a form whose parts
have such headers costs hundreds of times what one of its size should. Here a value is one step
of a regular expression, whose possessive quantifiers never try a second time, and there may be
only so many parameters.
"""

from __future__ import annotations

import re
from binascii import a2b_qp
from urllib.parse import unquote

from werkzeug.exceptions import BadRequest
from werkzeug.http import unquote_header_value

MAX_PARAMETERS = 32
"""Parameters of one header; three are known to be used, and a name may come in pieces."""

MAX_ESCAPES = 256
"""Backslashes in one value: more than a Windows path has."""

_TOKEN = r"[\w!#$%&'*+\-.^`|~]++"
#: A parameter, good or bad, and the semicolon with spaces after it.
_PARAMETER = re.compile(
    rf"""
    (?: ( {_TOKEN} ) = (?: ( {_TOKEN} ) | ( "(?: [^"\\]++ | \\["\\] | \\ )*+" ) | (") )?+ )?+
    [^;]*+ (?: ;[ \t]*+ | \Z )
    """,
    re.ASCII | re.VERBOSE,
)
_KEY_ENDS = re.compile(r"(?:\*([0-9]+))?(\*)?\Z", re.ASCII)
_EXTENDED_VALUE = re.compile(
    r"([\w!#$%&*+\-.^`|~]*)'[\w!#$%&*+\-.^`|~]*'([\w!#$%&'*+\-.^`|~]+)", re.ASCII
)
_CHARSETS = frozenset({"ascii", "us-ascii", "utf-8", "iso-8859-1"})
_MAX_BAD_ESCAPES = 64


def parse_parameters(header: str) -> dict[str, str]:
    """Return the parameters of a header's value, their names in lower case.

    Raises:
        BadRequest: It has more than `MAX_PARAMETERS`.
    """
    parameters: dict[str, str] = {}
    continued: dict[str, list[str]] = {}
    encodings: dict[str, str] = {}
    for key, value in _split(header):
        match = _KEY_ENDS.search(key)
        assert match is not None
        number, extended = match.groups()
        key = key[: match.start()]
        encoding = ""
        if extended:
            if found := _EXTENDED_VALUE.fullmatch(value):
                encoding, value = found[1].lower(), found[2]
            if not encoding and number:
                encoding = encodings.get(key, "")
            if encoding in _CHARSETS:
                value = _percent_decoded(value, encoding)
        else:
            value = _unquoted(value).replace("%22", '"')
        if number:
            parameters.pop(key, None)
            continued.setdefault(key, []).append(value)
            if encoding:
                encodings[key] = encoding
        else:
            continued.pop(key, None)
            encodings.pop(key, None)
            parameters[key] = value
    parameters.update((key, "".join(values)) for key, values in continued.items())
    return parameters


def _split(header: str) -> list[tuple[str, str]]:
    """Return the valid parameters as they stand there, values with their quotes."""
    kind, _, rest = header.partition(";")
    rest = rest.strip(" \t")
    if not kind.strip(" \t"):
        return []
    found: list[tuple[str, str]] = []
    position = count = 0
    while position < len(rest):
        match = _PARAMETER.match(rest, position)
        if match is None:
            break
        position = match.end()
        count += 1
        if count > MAX_PARAMETERS:
            raise BadRequest(
                f"A part's header has more than the {MAX_PARAMETERS} parameters allowed."
            )
        key, token, quoted, unclosed = match.groups()
        if unclosed:
            break
        if key is not None and (value := token or quoted):
            found.append((key.lower(), value))
    return found


def _unquoted(value: str) -> str:
    if value.count("\\") > MAX_ESCAPES:
        raise BadRequest(f"A part's header has more than {MAX_ESCAPES} escapes.")
    return unquote_header_value(value)


def _percent_decoded(value: str, encoding: str) -> str:
    """Decode percent escapes, all at once where they are well-formed."""
    count = value.count("%")
    if value.isascii():
        # Quoted-printable is the same with another sign, which a value cannot contain.
        data = a2b_qp(value.replace("%", "="))
        if len(data) == len(value) - 2 * count:
            return data.decode(encoding, "replace")
    if count > _MAX_BAD_ESCAPES:
        raise BadRequest("A part's header has malformed percent escapes.")
    return unquote(value, encoding)
