"""A proxy that breaks connections off: each after about a megabyte of what its client sends.

::

    with CuttingProxy(server.port, seed=1) as proxy:
        upload_to(proxy.port)
    assert proxy.cuts
"""

from __future__ import annotations

import contextlib
import random
import socket
import threading
from types import TracebackType

MEGABYTE = 1024 * 1024
_RESET = b"\1\0\0\0\0\0\0\0"  # SO_LINGER: on, for no second, so that closing resets


class CuttingProxy:
    """Passes bytes on between clients and a server on this machine, and breaks off at random.

    Args:
        port: Of the server.
        seed: Of the random numbers.
    """

    def __init__(self, port: int, seed: int) -> None:
        self._server = port
        self._random = random.Random(seed)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self.cuts = 0
        """Connections that were broken off."""

    def __enter__(self) -> CuttingProxy:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                size = self._random.randrange(MEGABYTE // 2, 3 * MEGABYTE // 2)
                threading.Thread(target=self._serve, args=(client, size), daemon=True).start()

    def _serve(self, client: socket.socket, size: int) -> None:
        with client, socket.create_connection(("127.0.0.1", self._server)) as server:
            back = threading.Thread(target=_pass_on, args=(server, client), daemon=True)
            back.start()
            if not _pass_on(client, server, size):
                with self._lock:
                    self.cuts += 1
                for end in (client, server):
                    with contextlib.suppress(OSError):
                        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                        end.shutdown(socket.SHUT_RD)  # wakes the other thread
            back.join()


def _pass_on(source: socket.socket, target: socket.socket, size: int | None = None) -> bool:
    """Pass bytes on, `size` of them at most; tell whether the source ended before that."""
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            if size is not None and len(data) >= size:
                target.sendall(data[:size])
                return False
            target.sendall(data)
            size = None if size is None else size - len(data)
        target.shutdown(socket.SHUT_WR)
    return True
