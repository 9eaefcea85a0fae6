"""`trio-sse-proxy connect` as it is called: what it asks, writes, keeps and says."""

from __future__ import annotations

import json
import os
import stat
import threading
import tomllib
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from click.testing import CliRunner
from patience import PATIENCE

from trio_sse_proxy import cli
from trio_sse_proxy.connecting import command, files
from trio_sse_proxy.connecting.command import Sight
from trio_sse_proxy.connecting.plan import NotConnected

THERE = Sight(there=True, wants_key=False, models=("tiny",))
AGENTS = {"codex": ".codex/config.toml", "claude": ".claude/settings.json"}
both = pytest.mark.parametrize("agent", list(AGENTS))


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("CODEX_HOME", "CLAUDE_CONFIG_DIR"):
        monkeypatch.delenv(name, raising=False)
    sees(monkeypatch, THERE)
    return tmp_path


def sees(monkeypatch, sight):
    monkeypatch.setattr(command, "look", lambda _: sight)


def run(*arguments, answer=None):
    return CliRunner().invoke(cli.main, ["connect", *arguments], input=answer)


def at_a_terminal(monkeypatch):
    monkeypatch.setattr(command, "at_a_terminal", lambda: True)


def copies(path):
    return [one for one in path.parent.iterdir() if one != path]


@both
def test_it_prints_and_writes_nothing_unless_told_to(agent, home):
    result = run(agent, "--model", "tiny")
    assert result.exit_code == 0
    assert "http://127.0.0.1:8787" in result.stdout
    assert "tiny" in result.stdout
    assert list(home.iterdir()) == []


def test_what_it_prints_for_codex_is_toml(home):
    tomllib.loads(run("codex").stdout)


@both
def test_a_file_that_is_not_there_is_made_for_its_owner_alone(agent, home):
    result = run(agent, "--write", "--yes")
    path = home / AGENTS[agent]
    assert result.exit_code == 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert copies(path) == []
    assert f"To undo it: rm {path}" in result.stderr


@both
def test_a_file_that_is_there_is_kept_beside_the_new_one_with_its_mode(agent, home):
    path = home / AGENTS[agent]
    path.parent.mkdir()
    before = {"codex": b"# mine\r\n", "claude": b'{"a": 1}'}[agent]
    path.write_bytes(before)
    path.chmod(0o640)
    result = run(agent, "--write", "--yes")
    assert result.exit_code == 0
    (copy,) = copies(path)
    assert copy.read_bytes() == before
    assert {stat.S_IMODE(one.stat().st_mode) for one in (copy, path)} == {0o640}
    assert path.read_bytes() != before
    assert f"To undo it: mv {copy} {path}" in result.stderr
    os.replace(copy, path)
    assert path.read_bytes() == before


@both
def test_doing_it_again_writes_nothing_and_needs_nobody(agent, home):
    run(agent, "--write", "--yes")
    path = home / AGENTS[agent]
    before = path.stat()
    result = run(agent, "--write")
    assert result.exit_code == 0
    assert f"{path} says all of that already" in result.stderr
    assert path.stat() == before
    assert copies(path) == []


@both
def test_nobody_there_to_ask_means_that_nothing_is_written(agent, home):
    result = run(agent, "--write", answer="y\n")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == (
        "trio-sse-proxy: nobody is there to ask: say --yes to have it written"
    )
    assert list(home.iterdir()) == []


@both
@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("n\n", 1), ("\n", 1)])
def test_people_are_asked_after_they_were_told(agent, answer, code, home, monkeypatch):
    at_a_terminal(monkeypatch)
    result = run(agent, "--write", answer=answer)
    assert result.exit_code == code
    assert result.stderr.index("will say:") < result.stderr.index("Write it?")
    assert (home / AGENTS[agent]).exists() == (code == 0)
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("agent", "variable", "name"),
    [("codex", "CODEX_HOME", "config.toml"), ("claude", "CLAUDE_CONFIG_DIR", "settings.json")],
)
def test_another_folder_is_heeded(agent, variable, name, home, monkeypatch):
    monkeypatch.setenv(variable, str(home / "else"))
    assert run(agent, "--write", "--yes").exit_code == 0
    assert [one.name for one in home.iterdir()] == ["else"]
    assert (home / "else" / name).exists()


@both
def test_a_link_is_followed(agent, home):
    path = home / AGENTS[agent]
    path.parent.mkdir()
    real = home / "real"
    real.write_text("")
    path.symlink_to(real)
    assert run(agent, "--write", "--yes").exit_code == 0
    assert path.is_symlink()
    assert "http://127.0.0.1:8787" in real.read_text()


@pytest.mark.parametrize(
    ("agent", "content", "said"),
    [
        ("codex", b"model =", "was left as it is: it is no TOML"),
        ("claude", b"{,}", "was left as it is: it is no JSON"),
        ("claude", b"\xff", "cannot be read: it is no UTF-8"),
    ],
)
def test_a_file_that_cannot_be_edited_is_left_alone_and_told(agent, content, said, home):
    path = home / AGENTS[agent]
    path.parent.mkdir()
    path.write_bytes(content)
    result = run(agent, "--write", "--yes")
    assert result.exit_code == 1
    assert said in result.stderr.splitlines()[-1]
    assert path.read_bytes() == content
    assert copies(path) == []


def test_a_file_that_somebody_changes_meanwhile_is_left_alone(tmp_path):
    from datetime import UTC, datetime

    path = tmp_path / "settings.json"
    path.write_text("theirs")
    with pytest.raises(NotConnected, match="changed meanwhile"):
        files.replace(path, "as it was", "ours", datetime.now(UTC))
    assert path.read_text() == "theirs"
    assert copies(path) == []


def test_copies_of_one_second_do_not_take_each_others_place(tmp_path):
    from datetime import UTC, datetime

    path, now = tmp_path / "a", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    path.write_text("1")
    files.replace(path, "1", "2", now)
    files.replace(path, "2", "3", now)
    assert {one.name: one.read_text() for one in copies(path)} == {
        "a.20260102T030405Z.bak": "1",
        "a.20260102T030405Z.bak.2": "2",
    }


def test_a_write_that_fails_leaves_the_old_file_and_nothing_beside_it(tmp_path, monkeypatch):
    from datetime import UTC, datetime

    path = tmp_path / "a"

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(NotConnected, match="No space left"):
        files.replace(path, None, "new", datetime.now(UTC))
    assert list(tmp_path.iterdir()) == []


@both
def test_no_proxy_at_that_address_is_a_warning(agent, home, monkeypatch):
    sees(monkeypatch, Sight(problem="Connection refused"))
    result = run(agent, "--write", "--yes", "--base-url", "http://127.0.0.1:1/v1")
    assert result.exit_code == 0
    assert "warning: no proxy answers at http://127.0.0.1:1 (Connection refused)" in result.stderr
    assert "http://127.0.0.1:1" in (home / AGENTS[agent]).read_text()
    assert "/v1/v1" not in (home / AGENTS[agent]).read_text()


def test_a_model_that_is_not_listed_is_a_warning(home):
    assert "warning: large is not among the models" in run("codex", "--model", "large").stderr
    assert "warning" not in run("codex", "--model", "tiny").stderr


def test_a_key_that_is_wanted_is_named(home, monkeypatch):
    sees(monkeypatch, Sight(there=True, wants_key=True))
    result = run("codex")
    assert 'env_key = "OPENAI_API_KEY"' in result.stdout
    assert "looks for it in the variable OPENAI_API_KEY" in result.stderr
    assert 'env_key = "TEAM_KEY"' in run("codex", "--env-key", "TEAM_KEY").stdout
    result = run("claude", "--write", "--yes", "--env-key", "TEAM_KEY")
    assert "start it with ANTHROPIC_AUTH_TOKEN=$TEAM_KEY" in result.stderr
    assert "TOKEN" not in (home / AGENTS["claude"]).read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("cursor",), "'cursor' is not one of 'codex', 'claude'"),
        (("codex", "--env-key", "sk-very-secret"), "must be the name of a variable"),
        (("codex", "--base-url", "nowhere"), "upstreams.base_url = nowhere: must be"),
    ],
)
def test_wrong_usage_is_told_with_exit_code_2(arguments, said, home):
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr
    assert "sk-very-secret" not in result.output


class ProxyLike(BaseHTTPRequestHandler):
    def do_GET(self):
        known = {"/-/healthz": (200, {"status": "ok"}), "/v1/models": (401, {})}
        status, body = known.get(self.path, (404, {}))
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *_):
        pass


@pytest.mark.slow
def test_a_proxy_is_seen_and_whether_it_wants_a_key(monkeypatch):
    from trio_sse_proxy.config import Upstream

    monkeypatch.setattr(command, "PATIENCE", PATIENCE)

    with HTTPServer(("127.0.0.1", 0), ProxyLike) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/v1"
        assert command.look(Upstream(base_url=url)) == Sight(there=True, wants_key=True)
        server.shutdown()
    gone = command.look(Upstream(base_url=url))
    assert (gone.there, "refused" in gone.problem) == (False, True)
