"""`trio-sse-proxy probe` as it is called."""

from __future__ import annotations

import pytest
import trio
from click.testing import CliRunner
from upstreams.servers import closed_port, serving

from trio_sse_proxy import cli
from trio_sse_proxy.config import load

from .player import Player


def run(*arguments):
    return CliRunner().invoke(cli.main, ["probe", *map(str, arguments)])


@pytest.mark.slow
def test_what_it_prints_can_be_pasted_into_a_file_with_settings(monkeypatch, tmp_path):
    monkeypatch.setenv("PROBED_KEY", "sk-very-secret")

    async def probed():
        player = Player(key="sk-very-secret", owner="vllm", images=False)
        async with serving(player.play) as port:
            url = f"http://127.0.0.1:{port}/v1"
            arguments = ("--upstream", url, "--api-key", "env:PROBED_KEY")
            return await trio.to_thread.run_sync(run, *arguments)

    result = trio.run(probed)
    assert result.exit_code == 0, result.output
    assert "sk-very-secret" not in result.output
    assert result.stderr.startswith("probing http://127.0.0.1:")
    file = tmp_path / "proxy.toml"
    file.write_text(result.stdout)
    (upstream,) = load(file, {}, {"PROBED_KEY": "sk-very-secret"}).upstreams
    assert (upstream.dialects, upstream.profile.base) == (("chat",), "vllm")
    assert upstream.profile.vision is False


@pytest.mark.slow
def test_a_server_that_nobody_reaches_is_told_in_one_line_with_exit_code_1():
    result = run("--upstream", f"http://127.0.0.1:{closed_port()}")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.splitlines()[-1].startswith("trio-sse-proxy: http://127.0.0.1:")
    assert "Connection refused" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "Missing option '--upstream'"),
        (("--upstream", "nowhere"), "upstreams.base_url = nowhere: must be"),
        (("--upstream", "http://a", "--timeout", "0"), "Invalid value for '--timeout'"),
        (("--upstream", "http://a", "--api-key", "env:NO_SUCH"), "NO_SUCH is not set"),
        (
            ("--upstream", "http://a", "--api-key", "sk-very-secret"),
            "must be env:NAME or file:PATH",
        ),
    ],
)
def test_wrong_usage_is_told_with_exit_code_2(arguments, said):
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr
    assert "sk-very-secret" not in result.output
