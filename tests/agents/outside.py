"""What agents would ask of the world outside, if they could.

It stands where their settings say that the way out is (`HTTPS_PROXY`), notes whom they wanted, and
answers nobody. A run that leaves a note here is not set up as it should be.
"""

from __future__ import annotations

import socket
import threading
from typing import Self


class Outside:
    """A context manager; `wanted` has the first line of every request."""

    def __init__(self) -> None:
        self.wanted: list[str] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._refuse_all, name="outside", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)  # wakes `accept`
        self._thread.join()
        self._socket.close()

    @property
    def environment(self) -> dict[str, str]:
        here = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        away = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), here)
        return away | dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1,localhost")

    def _refuse_all(self) -> None:
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            with client:
                client.settimeout(2)
                try:
                    line = client.recv(4096).partition(b"\r\n")[0]
                except OSError:
                    line = b"a connection that says nothing"
                self.wanted.append(line.decode("latin-1"))
