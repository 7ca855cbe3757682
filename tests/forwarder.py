"""A port that passes connections on to another one, and that can be shut for a while."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Forwarder:
    """Listens on a port of its own at the address ``here`` as long as it is not shut."""

    def __init__(self, port: int, host: str = "127.0.0.1", here: str = "127.0.0.1"):
        self.to, self.here, self.refused = (host, port), here, 0.0
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server((here, 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    @contextmanager
    def shut(self, seconds: float) -> Iterator[None]:
        """Refuse connections, and cut those that are open; opens again after the time, whatever the block does."""
        self.close()
        reopen = threading.Timer(seconds, self._reopen)
        reopen.start()
        begun = time.monotonic()
        yield
        reopen.join()
        self.refused = time.monotonic() - begun

    def close(self) -> None:
        """Listen no more."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._listener.close()
        for each in list(self._open):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _reopen(self) -> None:
        self._listener = socket.create_server((self.here, self.port))
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                near, _ = listener.accept()
                far = socket.create_connection(self.to)
                self._open |= {near, far}
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=self._pass, args=(one, other), daemon=True).start()

    def _pass(self, one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while data := one.recv(1 << 16):
                other.sendall(data)
        with suppress(OSError):
            other.shutdown(socket.SHUT_WR)
        self._open.discard(one)
