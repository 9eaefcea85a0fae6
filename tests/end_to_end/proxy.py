"""A real `trio-sse-proxy serve` process, and what the system knows about it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from patience import PATIENCE

ROOT = Path(__file__).parents[2]
EXIT = 20.0  # seconds; less than a running stream gets by default
LISTENING = re.compile(r"listening on http://127\.0\.0\.1:(\d+)")


class ServedProxy:
    """A context manager; on leaving, the process is told to end and must do so properly.

    With None the flags say which upstreams there are.
    """

    def __init__(self, upstream_url: str | None, *flags: str) -> None:
        self._command = [sys.executable, "-m", "trio_sse_proxy", "serve", "--bind", "127.0.0.1:0"]
        if upstream_url is not None:
            self._command += ["--upstream", upstream_url]
        self._command += flags
        self._files = ExitStack()
        self.port = 0
        self._any_code = False

    def __enter__(self) -> Self:
        self._stderr = self._files.enter_context(tempfile.TemporaryFile())
        self._stdout = self._files.enter_context(tempfile.TemporaryFile())
        settings = {k: v for k, v in os.environ.items() if not k.startswith("TRIO_SSE_PROXY_")}
        self._process = subprocess.Popen(
            self._command, cwd=ROOT, env=settings, stdout=self._stdout, stderr=self._stderr
        )
        try:
            self._wait_until_it_listens()
        except BaseException:
            self._process.kill()
            self._close()
            raise
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            code = self.end() if self._process.poll() is None else self._process.returncode
        finally:
            self._process.kill()
            said = self._close()
        if kind is None:
            assert code == 0 or self._any_code, f"exit code {code}; it said:\n{said[-2000:]}"
            assert "Traceback" not in said, said[said.index("Traceback") - 200 :][:4000]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        return self._process.pid

    def terminate(self) -> None:
        self._process.send_signal(signal.SIGTERM)

    def wait(self, timeout: float = PATIENCE) -> int:
        """The exit code; raises subprocess.TimeoutExpired."""
        return self._process.wait(timeout)

    def end(self) -> int:
        """Ask it to end, now that nobody needs it; the exit code."""
        self.terminate()
        return self.wait(EXIT)

    def forgive_exit_code(self) -> None:
        """For a test that ends it the hard way."""
        self._any_code = True

    def stderr(self) -> str:
        return read(self._stderr)

    def resident(self) -> int:
        """Bytes of memory in use (Linux)."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) * 1024

    def descriptors(self) -> int:
        """Open files and sockets (Linux)."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def page(self, path: str) -> tuple[int, bytes]:
        """Status and body of one of its own pages."""
        try:
            with urllib.request.urlopen(f"{self.url}{path}", timeout=PATIENCE) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    def get(self, path: str) -> Any:
        """One of its own pages, as JSON."""
        return json.loads(self.page(path)[1])

    def streams(self) -> list[dict[str, Any]]:
        """What it believes to be running."""
        return self.get("/-/streams")["streams"]

    def record_of(self, field: str, value: str) -> dict[str, Any]:
        """The one request with such a field; a record may be written a moment after an answer's end."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            for record in self.get("/-/records")["records"]:
                if record[field] == value:
                    return record
            time.sleep(0.02)
        raise AssertionError(f"no record of {value}")

    def _wait_until_it_listens(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and self._process.poll() is None:
            if found := LISTENING.search(self.stderr()):
                self.port = int(found[1])
                return
            time.sleep(0.02)
        raise RuntimeError(f"it does not listen; it said:\n{self.stderr()}")

    def _close(self) -> str:
        self._process.wait()
        with self._files:
            return read(self._stderr) + read(self._stdout)


def read(file: Any) -> str:
    """All of `file`, which somebody else may be writing: `pread` leaves its offset alone."""
    size = os.fstat(file.fileno()).st_size
    return os.pread(file.fileno(), size, 0).decode(errors="replace")
