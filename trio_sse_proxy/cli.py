"""The command line: `serve`, `check`, `demo`, `probe`, `connect`.

What a command needs is imported when it runs, so that `--help`, `--version` and a refused setting
come at once. Exit codes: 0 all went well, 1 it could not listen (or could not ask, or write what was
wanted), 2 a setting was wrong.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from .config import Settings

NAME = "trio-sse-proxy"

TRY_THE_DEMO = """\
No upstream is set, so the built-in demo upstream answers. Try:
  curl -N {url}/v1/chat/completions -H 'content-type: application/json' \\
    -d '{{"model": "demo", "stream": true, "messages": [{{"role": "user", "content": "hello"}}]}}'
"""

config_option = click.option(
    "--config",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A TOML file with settings. Default: what TRIO_SSE_PROXY_CONFIG names, or none.",
)


class SettingsCommand(click.Command):
    """A command with a flag for every setting that is no secret, made from the settings' model."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Its own options, the settings', and help."""
        *own, last = super().get_params(ctx)
        return [*own, *settings_flags(), last]


@cache
def settings_flags() -> tuple[click.Option, ...]:
    """Options that pass on what was typed. click judges nothing: it would take `nan`."""
    from .config import Settings
    from .reference import default, flag, has_flag, meaning
    from .settings_error import rule_of

    options: list[click.Option] = []
    for name in filter(has_flag, Settings.model_fields):
        off = f"/--no-{flag(name)[2:]}" if default(Settings, name) in ("true", "false") else ""
        said = f"{meaning(Settings, name).partition('. ')[0].rstrip('.')}."
        facts = f"Default: {default(Settings, name)}; allowed: {rule_of(Settings, name).words}."
        options.append(
            click.Option(
                [flag(name) + off],
                default=None,
                type=None if off else click.UNPROCESSED,
                metavar=None if off else "VALUE",
                help=f"{said} {facts}".replace("`", ""),
            )
        )
    return tuple(options)


@contextmanager
def told_in_one_line() -> Generator[None]:
    """What goes wrong on purpose ends the program with one line instead of a traceback."""
    from .core.errors import ProxyError
    from .settings_error import SettingsError

    try:
        yield
    except ProxyError as error:
        click.echo(f"{NAME}: {error}", err=True)
        raise SystemExit(2 if isinstance(error, SettingsError) else 1) from error


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name=NAME)
def main() -> None:
    """A streaming proxy for LLM APIs: heartbeats, replay before the first token, honest endings."""


@main.command(cls=SettingsCommand)
@config_option
@click.option(
    "--upstream", metavar="URL", help="Where requests go. Default: [[upstreams]], or a demo."
)
def serve(config: Path | None, **flags: object) -> None:
    """Listen, and pass requests on to upstreams until SIGTERM or SIGINT.

    SIGHUP reads the file again; streams that run go on as they began.

    Every setting can also be given in a file or as a variable: see docs/settings.md. Secrets have
    no flag. Exit code 0 after a drain, 1 if it cannot listen, 2 if a setting is wrong.
    """
    with told_in_one_line():
        settings = _checked(config, flags)
        from .wiring import run

        announce, again = _announcer(settings), partial(_checked, config, flags)
        raise SystemExit(run(settings, announce=announce, read_again=again))


@main.command()
@config_option
@click.option("--model", metavar="NAME", help="Show where requests for this model would go.")
@click.option(
    "--dialect",
    type=click.Choice(["chat", "responses", "messages"]),
    help="Their dialect. Default: the one of --path, or chat.",
)
@click.option("--path", metavar="PATH", help="Their path. Default: the dialect's usual one.")
def check(config: Path | None, model: str | None, dialect: str | None, path: str | None) -> None:
    """Say what is wrong with a file, or print the settings in force with the secrets masked.

    With --model, --dialect or --path it prints instead which route such a request takes, and to
    which upstreams. The environment counts, as it does for `serve`. Exit code 2 if a setting is
    wrong.
    """
    with told_in_one_line():
        settings = _checked(config, {})
    if model is None and dialect is None and path is None:
        from .reference import as_toml

        click.echo(as_toml(settings), nl=False)
    else:
        from .itinerary import itinerary, query

        click.echo(itinerary(settings, query(model, dialect, path)), nl=False)


@main.command()
def demo() -> None:
    """Show a silence, a cut before the first token, and a leaving client; takes half a minute."""
    from .demo.story import tell

    raise SystemExit(tell())


@main.command()
@click.option("--upstream", "url", metavar="URL", required=True, help="The server to ask.")
@click.option("--model", metavar="NAME", help="The model to ask for. Default: the first it lists.")
@click.option(
    "--api-key",
    "place",
    metavar="PLACE",
    help="Where its key lies: env:NAME or file:PATH. It is never printed.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=1, max=600),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="How long one answer may take; all together five times as long.",
)
def probe(url: str, model: str | None, place: str | None, timeout: float) -> None:
    """Ask a server a few small questions, and print the table [[upstreams]] that fits it.

    What is going to be sent, each request, and what was found goes to standard error; the table, ready
    to paste, to standard output. Exit code 0 if it could be asked, 1 if not, 2 if it was asked for
    wrongly.
    """
    from .settings_error import SettingsError

    with told_in_one_line():
        if place is not None and place.partition(":")[0] not in ("env", "file"):
            # Every user of a machine can read its command lines.
            raise SettingsError("--api-key", " must be env:NAME or file:PATH, not the key itself")
        from .config import Upstream
        from .probing.asker import Bounds
        from .probing.run import run

        table = Upstream.model_validate({"base_url": url, "api_key": place})
        bounds = Bounds(patience=timeout, total=5 * timeout)
        say = partial(click.echo, err=True)
        click.echo(run(table, model, place, bounds, say), nl=False)


@main.command()
@click.argument("agent", type=click.Choice(["codex", "claude"]))
@click.option(
    "--print/--write",
    "only_print",
    default=True,
    help="Print the settings (the default), or put them into the agent's own file.",
)
@click.option(
    "--base-url",
    default="http://127.0.0.1:8787",
    show_default=True,
    metavar="URL",
    help="Where the proxy listens.",
)
@click.option("--model", metavar="NAME", help="The model to use. Default: the agent's own.")
@click.option(
    "--env-key",
    metavar="NAME",
    help="The variable that holds the client's key. Default: none, unless the proxy asks for one.",
)
@click.option("--yes", is_flag=True, help="Write without asking.")
def connect(
    agent: str, only_print: bool, base_url: str, model: str | None, env_key: str | None, yes: bool
) -> None:
    """Make a coding agent use the running proxy: print its settings, or write them.

    Codex's are in ~/.codex/config.toml (or $CODEX_HOME), Claude Code's in ~/.claude/settings.json (or
    $CLAUDE_CONFIG_DIR). What else stands there stays; the old file is kept beside the new one. Exit
    code 0 if all is as it should be, 1 if nothing was written, 2 if it was asked for wrongly.
    """
    from .config import Upstream
    from .connecting.command import Connecting, at_a_terminal, look
    from .settings_error import SettingsError

    with told_in_one_line():
        if env_key is not None and not env_key.isidentifier():
            raise SettingsError("--env-key", " must be the name of a variable, not the key itself")
        connecting = Connecting(
            agent=agent,
            table=Upstream(base_url=base_url),
            model=model,
            key_variable=env_key,
            environ=os.environ,
            home=Path.home(),
            say=partial(click.echo, err=True),
            confirm=_yes if yes else partial(click.confirm, err=True) if at_a_terminal() else None,
            look=look,
        )
        if only_print:
            click.echo(connecting.print(), nl=False)
        else:
            connecting.write()


def _yes(_: str) -> bool:
    return True


def _checked(config: Path | None, flags: dict[str, object]) -> Settings:
    from .config import check_door, load

    settings = load(config, flags, os.environ)
    check_door(settings)
    return settings


def _announcer(settings: Settings) -> Callable[[str], None]:
    """Says, per address, where clients go and where their requests go; for a demo, what to try."""
    where = ", ".join(f"{one.name} ({one.base_url})" for one in settings.upstreams)
    hints = [] if where else [TRY_THE_DEMO]

    def announce(url: str) -> None:
        click.echo(f"{NAME} listening on {url}, upstream {where or 'demo (built in)'}", err=True)
        while hints:
            click.echo(hints.pop().format(url=url), err=True, nl=False)

    return announce
