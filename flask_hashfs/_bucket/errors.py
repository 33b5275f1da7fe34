"""What obstore raises, in this package's words."""

from __future__ import annotations

import errno
import re

from .._storage import messages
from ..exceptions import ConfigError, HashFSError, StoreFullError, StoreUnavailableError

# Of what obstore says when it finds no credentials and asks the machine for those of its role.
_CREDENTIALS = re.compile(
    r"/latest/(?:api|meta-data)/|/computeMetadata/|/metadata/identity/|//169\.254\."
    r"|Missing(?:SecretAccessKey|AccessKeyId)\b"
)
_CAUSE = re.compile(r'(?:message|error): "([^"]+)"|(InvalidCertificate)\(\s*(\w+)')

# The codes of Ceph, Google and others; RFC 4918 has the status.
_FULL = re.compile(r"\b(?:QuotaExceeded|InsufficientStorage|\w*StorageFull|status code: 507)\b")

_REFUSALS = ("PermissionDeniedError", "UnauthenticatedError")  # obstore is not imported here
_VARIABLES = {"s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"}


def in_words(error: BaseException, scheme: str, has_worked: bool) -> HashFSError:
    """Return the error to raise in place of one that obstore raised on a call.

    Args:
        error: Raised by obstore.
        scheme: Of the store's URL.
        has_worked: Whether any call has come through before. A store that finds no credentials
            from its first call on lacks them; later it may be an outage.
    """
    if is_panic(error):
        return StoreUnavailableError(f"obstore failed: {first_line(error)}")
    if _FULL.search(str(error)):
        messages.FULL.log(scheme, error=error)  # an HTTP error is logged by nobody else
        return StoreFullError(errno.EDQUOT, _with_cause(error))
    if has_worked or not _CREDENTIALS.search(str(error)):
        has_answered = type(error).__name__ in _REFUSALS
        return StoreUnavailableError(_with_cause(error), has_answered=has_answered)
    wanted = _VARIABLES.get(scheme, "the usual environment variables")
    return ConfigError(
        f"no credentials for the object store: set {wanted}, or give them in the store's options, "
        f"or run where the machine has a role: {_with_cause(error)}"
    )


def is_panic(error: BaseException) -> bool:
    """Tell a panic of obstore's Rust code, whose types cannot be imported.

    That of a blocking call is not an `Exception`, so that it would pass every handler.
    """
    return type(error).__name__ in ("PanicException", "RustPanic")


def _with_cause(error: BaseException) -> str:
    """Return an error's first line and, where its details name one, the cause.

    The line itself says no more of a refused connection than of a certificate nobody trusts.
    """
    words = [first_line(error)]
    for match in _CAUSE.finditer(str(error)):
        words[1:] = [" ".join(filter(None, match.groups()))]  # the last is the innermost
    return ": ".join(words)


def first_line(error: BaseException) -> str:
    """Return what an error says, without obstore's details."""
    return str(error).partition("\n")[0]
