"""Real web servers as processes of their own, and a raw HTTP/1.1 client for them.

::

    with serve("gthread", "module:app", env={...}) as server, server.connect() as client:
        answer = client.request("GET", "/path", [("Range", "bytes=0-4")])
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

START_TIMEOUT = 60.0  # seconds: these machines may be busy
STOP_TIMEOUT = 15.0
ANSWER_TIMEOUT = 60.0
TESTS = Path(__file__).parent

# Ends with the tests, also where they are killed: Linux sends the signal to a child whose parent
# died; elsewhere the call is missing, and an orderly end has to do.
_BOOT = """
import ctypes, os, signal, sys
try:
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)
except (AttributeError, OSError, TypeError):
    pass
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


@dataclass(frozen=True)
class Answer:
    """A response as it came over the wire."""

    status: int
    headers: Sequence[tuple[str, str]]
    body: bytes

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def get(self, name: str) -> str | None:
        values = self.all(name)
        assert len(values) < 2, f"{name} came {len(values)} times"
        return values[0] if values else None


@dataclass(frozen=True)
class Server:
    """A running server."""

    port: int
    process: subprocess.Popen[bytes]
    log_path: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def log(self) -> str:
        """Return what the server has written so far."""
        return self.log_path.read_text(errors="replace")

    def connect(self) -> Client:
        return Client(self.port)


# --- the servers ---------------------------------------------------------------------------------

# Each takes the app and where to listen (a descriptor or a port), and gives Python's arguments.


def _gunicorn(worker: str, *options: str) -> Callable[[str, int, int], list[str]]:
    def command(app: str, descriptor: int, port: int) -> list[str]:
        where = f"fd://{descriptor}"
        return ["-m", "gunicorn", "--bind", where, "--worker-class", worker, *options, app]

    return command


def _uvicorn(http: str) -> Callable[[str, int, int], list[str]]:
    def command(app: str, descriptor: int, port: int) -> list[str]:
        module, _, name = app.partition(":")
        factory = ["--factory"] if name.endswith("()") else []
        target = f"{module}:{name.removesuffix('()')}"
        # Not by descriptor: uvicorn takes that for a Unix socket and leaves Nagle's delays on.
        listen = ["--host", "127.0.0.1", "--port", str(port), "--http", http]
        return ["-m", "uvicorn", "--no-access-log", *listen, *factory, target]

    return command


def _hypercorn(app: str, descriptor: int, port: int) -> list[str]:
    return ["-m", "hypercorn", "--bind", f"fd://{descriptor}", app]


def _granian(interface: str) -> Callable[[str, int, int], list[str]]:
    def command(app: str, descriptor: int, port: int) -> list[str]:
        module, _, name = app.partition(":")
        factory = ["--factory"] if name.endswith("()") else []
        target = f"{module}:{name.removesuffix('()')}"
        listen = ["--host", "127.0.0.1", "--port", str(port), "--interface", interface]
        return ["-m", "granian", *listen, *factory, target]

    return command


def _hypercorn_wsgi(app: str, descriptor: int, port: int) -> list[str]:
    return _hypercorn(f"wsgi:{app}", descriptor, port)


def _uwsgi(protocol: str) -> Callable[[str, int, int], list[str]]:
    def command(app: str, descriptor: int, port: int) -> list[str]:
        start = "import pyuwsgi, sys; pyuwsgi.run(sys.argv[1:])"
        listen = [f"--{protocol}", f"127.0.0.1:{port}", "--master", "--die-on-term"]
        return ["-c", start, *listen, "--need-app", "--enable-threads", "--wsgi", app]

    return command


def _wsgiref(app: str, descriptor: int, port: int) -> list[str]:
    module, _, name = app.partition(":")
    start = (
        f"import {module}; from wsgiref.simple_server import make_server; "
        f"make_server('127.0.0.1', {port}, {module}.{name}).serve_forever()"
    )
    return ["-c", start]


COMMANDS: Mapping[str, Callable[[str, int, int], list[str]]] = {
    "gunicorn": _gunicorn("sync"),
    "gthread": _gunicorn("gthread", "--threads", "4"),
    "gunicorn-asgi": _gunicorn("asgi"),
    "uvicorn": _uvicorn("h11"),
    "uvicorn-httptools": _uvicorn("httptools"),
    "hypercorn": _hypercorn,
    "granian": _granian("asgi"),
    "granian-wsgi": _granian("wsgi"),
    "hypercorn-wsgi": _hypercorn_wsgi,
    "uwsgi": _uwsgi("http-socket"),
    "uwsgi-router": _uwsgi("http"),
    "wsgiref": _wsgiref,
}
_BY_PORT = (
    "uvicorn",
    "granian",
    "uwsgi",
    "wsgiref",
)  # so that another process may take the port before they do


@contextlib.contextmanager
def serve(
    kind: str,
    app: str,
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path = TESTS,
    options: Sequence[str] = (),
    ready: str = "/",
) -> Iterator[Server]:
    """Run an app on a server of its own until the block ends.

    Args:
        kind: A key of `COMMANDS`.
        app: ``module:name`` or ``module:factory()``, importable from `cwd`.
        env: Variables beside those of this process.
        cwd: Where the server starts, and finds the module.
        options: Further arguments of the server.
        ready: A path that is asked for until something answers, with whatever status.

    Yields:
        The server, which has answered a request.

    Raises:
        RuntimeError: The server ended, or did not answer in time; with its log.
    """
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="server-")))
        log_path = folder / "log"
        # gunicorn would put the socket of its control into the home, one for all servers.
        env = {"XDG_RUNTIME_DIR": str(folder), **(env or {})}
        for attempt in range(3):
            server = _start(kind, app, env, cwd, options, log_path)
            stack.callback(_stop, server)
            if _answers(server, ready):
                break
            if attempt == 2 or "address already in use" not in server.log().lower():
                raise RuntimeError(f"the server did not start:\n{server.log()}")
        yield server  # pyright: ignore[reportPossiblyUnboundVariable]


def _start(
    kind: str,
    app: str,
    env: Mapping[str, str],
    cwd: Path,
    options: Sequence[str],
    log_path: Path,
) -> Server:
    path = os.pathsep.join([str(cwd), *(entry for entry in sys.path if entry)])
    env = {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **env}
    with socket.socket() as listener, log_path.open("wb") as log:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        by_port = kind.startswith(_BY_PORT)
        if by_port:
            listener.close()
        else:
            listener.listen(128)
            listener.set_inheritable(True)
        command = COMMANDS[kind](app, listener.fileno(), port)
        command[2:2] = options  # after "-m name"
        process = subprocess.Popen(
            [sys.executable, "-c", _BOOT, *command],
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=() if by_port else (listener.fileno(),),
            start_new_session=True,
        )
    return Server(port, process, log_path)


def _answers(server: Server, ready: str) -> bool:
    """Wait for the server's first answer, or for its end."""
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline:
        if server.process.poll() is not None:
            break
        with contextlib.suppress(OSError, ValueError), server.connect() as client:
            client.request("GET", ready)
            return server.process.poll() is None
        time.sleep(0.05)
    return False


def _stop(server: Server) -> None:
    """End the server in an orderly way, and every process of its session in any case."""
    process = server.process
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        pass
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)  # the leader of its session: nobody else's
    process.wait()


# --- the client ----------------------------------------------------------------------------------


class Client:
    """A connection that sends exactly what it is told and reads exactly one answer.

    It is kept alive where the server keeps it, else opened anew for the next request. Bytes that
    follow an answer unasked are an error, there and then or at the next answer.
    """

    kind = ""

    def __init__(self, port: int) -> None:
        self._port = port
        self._socket: socket.socket | None = None
        self._stream: BinaryIO | None = None
        self.connections = 0

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()
        if self._socket is not None:
            self._socket.close()
        self._socket = self._stream = None

    def request(
        self,
        method: str,
        target: str,
        headers: Iterable[tuple[str, str]] = (),
        body: bytes = b"",
    ) -> Answer:
        """Send a request and read its answer.

        Args:
            method: The method, as it is.
            target: The request target, as it is: neither normalised nor quoted.
            headers: Lines in their order, repeated names and all. Host is added, and
                Content-Length where there is a body.
            body: The body.
        """
        lines = [f"{method} {target} HTTP/1.1", f"Host: 127.0.0.1:{self._port}"]
        lines += [f"{name}: {value}" for name, value in headers]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        message = "\r\n".join([*lines, "", ""]).encode("latin-1") + body
        used = self._socket is not None
        try:
            return self._exchange(method, message)
        except (BrokenPipeError, ConnectionResetError, EOFError):
            self.close()
            if not used:
                raise
        return self._exchange(method, message)  # the server had closed an idle connection

    def _exchange(self, method: str, message: bytes) -> Answer:
        if self._socket is None or self._stream is None:
            self._socket = socket.create_connection(("127.0.0.1", self._port), ANSWER_TIMEOUT)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._stream = self._socket.makefile("rb")
            self.connections += 1
        self._socket.sendall(message)
        try:
            answer, keep = _read_answer(self._stream, method)
        except Exception:
            self.close()
            raise
        if not keep:
            self.close()
        return answer


def _read_answer(stream: BinaryIO, method: str) -> tuple[Answer, bool]:
    status_line = stream.readline()
    if not status_line:
        raise EOFError
    version, _, rest = status_line.decode("latin-1").partition(" ")
    if not version.startswith("HTTP/1."):
        raise ValueError(f"no status line: {status_line[:80]!r}")
    status = int(rest[:3])
    headers = []
    while line := stream.readline().rstrip(b"\r\n"):
        name, colon, value = line.decode("latin-1").partition(":")
        assert colon, line
        headers.append((name, value.strip(" \t")))
    answer = Answer(status, headers, b"")
    closes = "close" in (answer.get("Connection") or "").lower() or version == "HTTP/1.0"
    if method == "HEAD" or status in {204, 304}:
        body = b""
    elif "chunked" in (answer.get("Transfer-Encoding") or ""):
        body = _read_chunks(stream)
    elif (length := answer.get("Content-Length")) is not None:
        body = _read_exactly(stream, int(length))
    else:
        body, closes = stream.read(), True
    if closes:
        assert stream.read() == b"", "bytes after the answer"
    return Answer(status, headers, body), not closes


def _read_exactly(stream: BinaryIO, size: int) -> bytes:
    body = stream.read(size)
    assert len(body) == size, f"the body ended after {len(body)} of {size} bytes"
    return body


def _read_chunks(stream: BinaryIO) -> bytes:
    chunks = []
    while size := int(stream.readline().partition(b";")[0], 16):
        chunks.append(_read_exactly(stream, size))
        assert stream.readline() == b"\r\n"
    while stream.readline() not in {b"\r\n", b""}:
        pass
    return b"".join(chunks)
