"""Every example runs as its first lines say: started by hand, asked over a socket, ended by a signal."""

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
from contextlib import contextmanager
from pathlib import Path

import pytest
from patience import PATIENCE

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
ASK = {"model": "demo", "stream": True, "messages": [{"role": "user", "content": "fast hello"}]}

pytestmark = pytest.mark.slow


class Example:
    """A running example."""

    def __init__(self, name: str) -> None:
        self._output = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, EXAMPLES / name, "127.0.0.1:0"],
            stdout=self._output,
            stderr=subprocess.STDOUT,
            env={
                **{k: v for k, v in os.environ.items() if not k.startswith("TRIO_SSE_PROXY_")},
                "PYTHONPATH": str(ROOT),
            },
        )
        self.url = ""

    def said(self) -> str:
        size = os.fstat(self._output.fileno()).st_size
        return os.pread(self._output.fileno(), size, 0).decode()

    def wait_for(self, words: str) -> str:
        """What the group of `words` matches, once the example has said that."""
        deadline = time.monotonic() + PATIENCE
        while not (found := re.search(words, self.said(), re.MULTILINE)):
            assert self._process.poll() is None, self.said()
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.02)
        return found[1]

    def end(self) -> int:
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(PATIENCE)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._output.close()

    def ask(self, path: str, body: object = ASK, **headers: str) -> tuple[int, str]:
        """Status and body of an answer."""
        fields = {"content-type": "application/json"}
        fields |= {name.replace("_", "-"): value for name, value in headers.items()}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, fields)
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()


@contextmanager
def started(name: str):
    """The example while it runs; it must end well and have said nothing of a failure."""
    example = Example(name)
    try:
        example.url = example.wait_for(r"Running on (http://127\.0\.0\.1:\d+)")
        yield example
        assert example.end() == 0, example.said()
        assert "Traceback" not in example.said(), example.said()
    finally:
        example.kill()


def text_of(stream: str) -> str:
    """What a Chat stream says in words."""
    chunks = re.findall(r"^data: ({.*})$", stream, re.MULTILINE)
    choices = [choice for chunk in chunks for choice in json.loads(chunk)["choices"]]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


def test_starlette_serves_the_proxy_below_a_prefix_beside_its_own_pages():
    with started("embedded_starlette.py") as example:
        status, stream = example.ask("/llm/v1/chat/completions")
        assert status == 200
        assert "fast hello" in text_of(stream)
        assert stream.endswith("data: [DONE]\n\n")
        assert example.ask("/", None) == (200, "POST to /llm/v1/chat/completions\n")


def test_fastapi_lets_only_its_own_users_reach_the_proxy():
    with started("embedded_fastapi.py") as example:
        assert example.ask("/llm/v1/messages") == (401, "who are you?\n")
        status, stream = example.ask("/llm/v1/messages", x_api_key="alice")
        assert status == 200
        assert "event: message_stop\n" in stream
        assert example.ask("/users", None) == (200, '["Alice","Bob"]')


def test_settings_in_code_add_up_tokens_and_keep_the_door():
    with started("settings_in_code.py") as example:
        assert example.ask("/v1/chat/completions", origin="https://evil.example")[0] == 403
        asked = {**ASK, "stream_options": {"include_usage": True}}
        assert example.ask("/v1/chat/completions", asked)[0] == 200
        first = int(example.wait_for(r"^demo: (\d+) tokens so far$"))
        assert example.ask("/v1/chat/completions", asked)[0] == 200
        example.wait_for(f"^demo: ({2 * first}) tokens so far$")


def test_an_upstream_in_the_process_is_relayed_to_its_end():
    with started("in_process_upstream.py") as example:
        asked = {**ASK, "messages": [{"role": "user", "content": "one two"}]}
        status, stream = example.ask("/v1/chat/completions", asked)
        assert status == 200
        assert text_of(stream) == "one two "
        example.wait_for("ending=(completed) ")


def test_every_example_is_run_here():
    mine = Path(__file__).read_text()
    workers = {path.name for path in EXAMPLES.glob("worker_*.py")}  # run in test_worker_examples.py
    scripts = {path.name for path in EXAMPLES.glob("*.py")} - {"serving.py"} - workers
    assert scripts == set(re.findall(r'started\("(\w+\.py)"\)', mine))
