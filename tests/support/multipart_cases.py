"""Multipart bodies, well-formed and not, for the decoder and for both frameworks."""

from __future__ import annotations

from flask_hashfs._http.multipart import MAX_PART_HEADER_BYTES, MAX_PART_HEADER_COUNT

BOUNDARY = "bound"
NAMED = b'Content-Disposition: form-data; name="a"\r\n'
FILE = b'Content-Disposition: form-data; name="f"; filename="f.bin"\r\n'


def body_of(*parts: bytes) -> bytes:
    """Return a body whose parts are given with their headers."""
    return b"".join(b"--bound\r\n" + part + b"\r\n" for part in parts) + b"--bound--\r\n"


def file_part(content: bytes, filename: str = "f.bin") -> bytes:
    """Return a file part, with its headers, for `body_of`."""
    disposition = f'Content-Disposition: form-data; name="f"; filename="{filename}"\r\n\r\n'
    return disposition.encode() + content


SMALL = body_of(
    NAMED + b"\r\none\r\n",
    FILE + b"Content-Type: text/plain\r\n\r\ntwo\r\n--boun\r\n",
    NAMED,
    FILE + b"\r\n",
)

WELL_FORMED = {
    "nothing": b"--bound--\r\n",
    "nothing, after a line break": b"\r\n--bound--",
    "fields, files, empty ones": SMALL,
    "order and duplicates": body_of(
        *(
            b'Content-Disposition: form-data; name="%b"\r\n\r\n%d' % (name, number)
            for number, name in enumerate([b"b", b"a", b"b", b"a", b"c"])
        )
    ),
    "preamble": b"This is a multipart message.\r\n--boundless\r\n" + SMALL,
    "preamble that ends within the first delimiter's line": b"junk " + SMALL,
    "epilogue": SMALL + b"\r\n--bound\r\nanything\r\n\r\n--bound\r\n",
    "no line break at the end": SMALL.removesuffix(b"\r\n"),
    "padded delimiters": SMALL.replace(b"--bound\r\n", b"--bound \t\r\n"),
    "long padding behind delimiters": SMALL.replace(
        b"--bound\r\n", b"--bound" + b" " * 50 + b"\r\n"
    ),
    "no body, no blank line": body_of(NAMED, FILE, NAMED),
    "no body, then a padded delimiter": body_of(FILE, NAMED).replace(b"bound\r", b"bound \r"),
    "no body, then content that begins with line breaks": body_of(
        NAMED,
        FILE + b"\r\n\r\nline one\r\nline two",
        FILE,
        FILE + b"\r\n\r\n\r\n--boundx\r\n\r\n",
    ),
    "content like a delimiter": body_of(
        FILE + b"\r\n--boundary\r\n--boun\r\n\r\n--bound_\r\n-\r\n--boundx--\r\r\n",
        FILE + b"\r\n--bound-",
        FILE + b"\r\n\r\n--boundx",
        FILE + b"\r\n--boun",
    ),
    "content of line breaks": body_of(FILE + b"\r\n\r\n\r\n\r\r\n\n", NAMED + b"\r\n\n\r\r\n\r\n"),
    "nested multipart is a file like any other": body_of(
        FILE + b"Content-Type: multipart/mixed; boundary=inner\r\n\r\n"
        b"--inner\r\nContent-Type: text/plain\r\n\r\nx\r\n--inner--\r\n"
    ),
    "transfer encodings are ignored": body_of(
        FILE + b"Content-Transfer-Encoding: base64\r\n\r\naGVsbG8=",
        NAMED + b"Content-Transfer-Encoding: quoted-printable\r\n\r\n=41",
    ),
    "header names in any case, values in any spacing": body_of(
        b'CONTENT-disposition:form-data;name="a" ;  filename=x.txt\r\nX:   y  \r\nX: \r\n\r\nz'
    ),
    "another disposition": body_of(b'Content-Disposition: attachment; name="a"\r\n\r\nx'),
    "text in utf-8": body_of(NAMED + b"\r\n" + "żółw 🐢".encode()),
    "text that is not utf-8": body_of(NAMED + b"\r\n\xff\xfe\xc5"),
    "text in latin-1": body_of(
        NAMED + b"Content-Type: text/plain; charset=ISO-8859-1\r\n\r\n\xe9\xff"
    ),
    "text in a charset that is not taken": body_of(
        NAMED + b"Content-Type: text/plain; charset=utf-16\r\n\r\na\x00",
        NAMED + b"Content-Type: text/plain; charset=zlib\r\n\r\nx\x9c",
    ),
    "text said to be ascii": body_of(
        NAMED + b"Content-Type: text/plain; charset=ascii\r\n\r\n\xe9"
    ),
    "a folded header": body_of(
        b'Content-Disposition: form-data;\r\n name="a";\r\n\tfilename=b\r\nX: y\r\n  z\r\n\r\nx'
    ),
    "a name of nothing": body_of(b'Content-Disposition: form-data; name=""\r\n\r\nx'),
    "many parts": body_of(*[FILE + b"\r\n%d" % number for number in range(300)]),
}

#: Werkzeug shows the text of the first under no name.
NAMELESS = body_of(
    b"Content-Disposition: form-data\r\n\r\nx",
    b'Content-Disposition: form-data; filename="x"\r\n\r\nx',
    b"Content-Disposition: form-data\r\n",
    b"Content-Disposition:\r\n\r\nx",
    NAMED + b"\r\nshown",
)

FILENAMES = {
    "no file chosen": b'filename=""',
    "plain": b'filename="a.txt"',
    "token": b"filename=a.txt",
    "quoted pairs": b'filename="a\\"b\\\\c.txt"',
    "browser's quotes": b'filename="a%22b.txt"',
    "percent signs stay": b'filename="100%25 %0d%0a.txt"',
    "utf-8": 'filename="żółw 🐢.txt"'.encode(),
    "RFC 5987": b"filename*=utf-8''%E2%82%AC%20rates.txt",
    "RFC 5987, latin-1": b"filename*=iso-8859-1'en'%A3%20rates.txt",
    "RFC 5987, a charset that is not taken": b"filename*=utf-16''%A3.txt",
    "RFC 5987 beside a plain one": b"filename=\"e.txt\"; filename*=utf-8''%E2%82%AC.txt",
    "RFC 2231 continuations": b'filename*0="very "; filename*1="long.txt"',
    "RFC 2231 continuations in a charset": b"filename*0*=utf-8''%E2%82; filename*1*=%AC.txt",
    "a Windows path": rb'filename="C:\Users\me\a.txt"',
    "a Windows share": rb'filename="\\server\share\a.txt"',
    "traversal": b'filename="../../../etc/passwd"',
    "an absolute path": b'filename="/etc/passwd"',
    "NUL": b'filename="a\x00.txt"',
    "control characters": b'filename="a\x01\x1b\x7f.txt"',
    "an encoded line break": b"filename*=utf-8''a%0D%0Ab.txt",
    "an extension over 255 bytes": b'filename="a.' + b"x" * 300 + b'"',
    "semicolons and equal signs": b'filename="a; filename=b.txt"',
    "no closing quote": b'filename="a.txt',
    "twice": b'filename="a.txt"; filename="b.txt"',
}

MALFORMED = {
    "a part without headers": body_of(b"\r\nx"),
    "a part with nothing at all": body_of(b""),
    "a part without headers or body": body_of(b"\r\n"),
    "a part without Content-Disposition": body_of(b"Content-Type: text/plain\r\n\r\nx"),
    "a header without a colon": body_of(b"Content-Disposition\r\n\r\nx"),
    "a header without a name": body_of(NAMED + b": x\r\n\r\nx"),
    "a space in a header's name": body_of(NAMED + b"X Y: z\r\n\r\nx"),
    "headers that are not utf-8": body_of(
        b'Content-Disposition: form-data; name="a"; filename="\xe9"\r\n\r\nx'
    ),
    "a line feed in a header": body_of(
        b'Content-Disposition: form-data; name="a"; filename="a\nb"\r\n\r\nx'
    ),
    "a carriage return in a header": body_of(NAMED + b"X: a\rb\r\n\r\nx"),
    "line feeds alone": SMALL.replace(b"\r\n", b"\n"),
    "carriage returns alone": SMALL.replace(b"\r\n", b"\r"),
    "a header line of 10 MB": body_of(NAMED + b"X: " + b"x" * 10_000_000 + b"\r\n\r\nx"),
    "a header name of 10 MB": body_of(NAMED + b"x" * 10_000_000 + b": x\r\n\r\nx"),
    "a filename of 10 MB": body_of(
        b'Content-Disposition: form-data; name="a"; filename="' + b"x" * 10_000_000 + b'"\r\n\r\nx'
    ),
    "too many bytes of headers": body_of(
        NAMED + (b"X: " + b"x" * (MAX_PART_HEADER_BYTES // 8) + b"\r\n") * 9 + b"\r\nx"
    ),
    "too many headers": body_of(NAMED + b"X: y\r\n" * MAX_PART_HEADER_COUNT + b"\r\nx"),
    "a padded delimiter that goes on": body_of(FILE + b"\r\nx\r\n--bound x"),
    "another boundary": SMALL.replace(b"--bound", b"--other"),
    "no final boundary": SMALL.removesuffix(b"--bound--\r\n"),
    "nothing at all": b"",
    "only junk": b"junk" * 1000,
    "a first delimiter padded without end": b"--bound"
    + b" " * 100_000
    + b"\r\n"
    + NAMED
    + b"\r\nx",
}
