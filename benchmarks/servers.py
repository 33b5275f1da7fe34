"""Servers as processes, what they use, and the load generator as another."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from harness import MIB, Report, empty_files, which

HERE = Path(__file__).parent
START_TIMEOUT = 60.0
IDLE_TIMEOUT = 5.0
BODY_LIMIT = 1100 * MIB


def _uvicorn(app: str, port: int) -> list[str]:
    return ["-m", "uvicorn", "--no-access-log", "--port", str(port), app]


def _hypercorn(app: str, port: int) -> list[str]:
    return ["-m", "hypercorn", "--bind", f"127.0.0.1:{port}", app]


def _granian(app: str, port: int) -> list[str]:
    # By default it accepts no more than 1024 connections at a time.
    many = ["--backlog", "16384", "--backpressure", "16384"]
    return ["-m", "granian", "--port", str(port), *many, "--interface", "asgi", app]


def _gunicorn(app: str, port: int) -> list[str]:
    where = f"127.0.0.1:{port}"
    return ["-m", "gunicorn", "--bind", where, "--threads", "16", "--keep-alive", "30", app]


COMMANDS = {
    "uvicorn": _uvicorn,
    "hypercorn": _hypercorn,
    "granian": _granian,
    "gunicorn": _gunicorn,
    "aiohttp": lambda app, port: [str(HERE / f"{app}.py"), str(port)],
    "sink": lambda app, port: [str(HERE / "load.py"), "sink", str(port)],
}


@dataclass
class Usage:
    """What the processes of a server have used up to now."""

    cpu: float  # seconds
    rss: float  # MiB
    peak: float  # MiB, since the last reset
    written: float  # bytes given to write calls, on files and pipes


@dataclass
class Server:
    """A running server; one worker process, whatever it is."""

    port: int
    process: subprocess.Popen[bytes]
    log: Path
    root: Path  # of its store
    family: list[psutil.Process] = field(default_factory=list)

    def get(self, path: str) -> bytes:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=30) as answer:
            return bytes(answer.read())

    def usage(self) -> Usage:
        total = Usage(0.0, 0.0, 0.0, 0.0)
        for process in self.family:
            with contextlib.suppress(psutil.NoSuchProcess):  # it ended: its next round fails
                total.cpu += cpu_seconds(process.pid)
                total.rss += process.memory_info().rss / MIB
                total.peak += peak_memory(process.pid)
                total.written += process.io_counters().write_chars
        return total

    def drop_content(self) -> None:
        """Empty the stored files, so that no disk is busy with them during the next round."""
        empty_files(self.root)

    def reset_peak(self) -> None:
        for process in self.family:
            with contextlib.suppress(OSError):
                Path(f"/proc/{process.pid}/clear_refs").write_text("5")


def wait_idle(*servers: Server) -> None:
    """Wait until the servers have done nothing more for a tenth of a second."""
    deadline = time.monotonic() + IDLE_TIMEOUT
    before = sum(server.usage().cpu for server in servers)
    while time.monotonic() < deadline:
        time.sleep(0.1)
        now = sum(server.usage().cpu for server in servers)
        if now - before < 0.02:
            return
        before = now


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process: in nanoseconds, where psutil's figure has 10 ms.

    Raises:
        psutil.NoSuchProcess: It has ended.
    """
    try:
        return time.clock_gettime(~pid << 3 | 2)  # what clock_getcpuclockid(3) returns on Linux
    except OSError:
        raise psutil.NoSuchProcess(pid) from None


def peak_memory(pid: int) -> float:
    """Return the most memory that a process has had since the last reset, in MiB."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0.0)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@contextlib.contextmanager
def serve(
    kind: str, app: str, folder: Path, env: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """Run an app (`module:name` in this folder) on a server of its own until the block ends."""
    for attempt in range(3):
        port = free_port()
        command = [sys.executable, *COMMANDS[kind](app, port)]
        server = _start(command, port, folder, env or {})
        if _answers(server):
            break
        stop(server.process)
        if attempt == 2 or b"in use" not in server.log.read_bytes():
            raise RuntimeError(f"{kind} did not start:\n{server.log.read_text()[-2000:]}")
    with _running(server):
        yield server


@contextlib.contextmanager
def serve_nginx(root: Path, folder: Path) -> Iterator[Server]:
    """Run nginx on a folder of files, set up as its own documentation does for static files."""
    program = which("nginx")
    if program is None:
        raise FileNotFoundError("nginx is absent (Debian: apt-get install nginx-light)")
    port = free_port()
    config = folder / "nginx.conf"
    user = "user root;" if os.geteuid() == 0 else ""
    config.write_text(f"""
        {user} daemon off; worker_processes 1; pid {folder}/pid; error_log stderr error;
        events {{ worker_connections 1024; }}
        http {{
            access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000;
            client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
            fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi;
            scgi_temp_path {folder}/scgi;
            server {{ listen 127.0.0.1:{port}; root {root}; }}
        }}""")
    command = [program, "-e", "stderr", "-p", str(folder), "-c", str(config)]
    server = _start(command, port, folder, {})
    if not _answers(server):
        stop(server.process)
        raise RuntimeError(f"nginx did not start:\n{server.log.read_text()[-2000:]}")
    with _running(server):
        yield server


@contextlib.contextmanager
def serve_node(script: Path, folder: Path, root: Path) -> Iterator[Server]:
    """Run a script in Node.js, which is given the port and the folder of its store."""
    port = free_port()
    command = [str(which("node")), str(script), str(port), str(root)]
    server = _start(command, port, folder, {"BENCH_ROOT": str(root)})
    if not _answers(server):
        stop(server.process)
        raise RuntimeError(f"{script.name} did not start:\n{server.log.read_text()[-2000:]}")
    with _running(server):
        yield server


@contextlib.contextmanager
def serve_together(
    report: Report, title: str, contexts: Mapping[str, AbstractContextManager[Server]]
) -> Iterator[dict[str, Server]]:
    """Run servers, started side by side, under their names; one that does not start is left out."""
    running: dict[str, Server] = {}
    with contextlib.ExitStack() as stack:
        with ThreadPoolExecutor() as pool:
            started = {name: pool.submit(each.__enter__) for name, each in contexts.items()}
        for name, future in started.items():
            try:
                running[name] = future.result()
            except Exception as error:
                report.leave_out(f"{title}: {name} ({error})")
            else:
                stack.push(contexts[name])
        yield running


def _start(command: list[str], port: int, folder: Path, env: Mapping[str, str]) -> Server:
    log = folder / f"log-{port}"
    whole = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(HERE), *sys.path]))}
    whole |= {"XDG_RUNTIME_DIR": str(folder), **env}
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, env=whole, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=folder
        )
    return Server(port, process, log, Path(whole.get("BENCH_ROOT", folder)))


def _answers(server: Server) -> bool:
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline and server.process.poll() is None:
        try:
            server.get("/")
        except urllib.error.HTTPError:
            return True
        except OSError:
            time.sleep(0.05)
        else:
            return True
    return False


@contextlib.contextmanager
def _running(server: Server) -> Iterator[None]:
    try:
        parent = psutil.Process(server.process.pid)
        server.family = [parent, *parent.children(recursive=True)]
        yield
    finally:
        stop(server.process)


def stop(process: subprocess.Popen[Any]) -> None:
    """End a process and its children."""
    try:
        family = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        family = []
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for child in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()


class Generator:
    """The load generator's process."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "load.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Generator:
        return self

    def __exit__(self, *error: object) -> None:
        stop(self.process)

    def send(self, order: str, **what: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"order": order, **what}) + "\n")
        self.process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        """Return the result of the order, every answer of which was as it should be."""
        assert self.process.stdout is not None
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        if "error" in answer:
            raise RuntimeError(answer["error"])
        wrong = {code: count for code, count in answer["statuses"].items() if code[0] != "2"}
        if wrong:
            raise RuntimeError(f"answers: {wrong}")
        return answer

    def ask(self, order: str, **what: Any) -> dict[str, Any]:
        """Give an order and return its result, as `answer` does."""
        self.send(order, **what)
        return self.answer()
