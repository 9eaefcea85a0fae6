"""nginx from Debian, set up for streaming as its users do: no buffering, connections kept."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from .contestant import Contestant, NotHere, run

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from .contestant import Place

CONFIG = """
daemon off;
worker_processes 1;
worker_rlimit_nofile 40000;
pid {scratch}/nginx.pid;
error_log {scratch}/error.log crit;
{user}
events {{ worker_connections 20000; }}
http {{
    access_log off;
    client_body_temp_path {scratch}/body;
    proxy_temp_path {scratch}/proxy;
    fastcgi_temp_path {scratch}/fastcgi;
    uwsgi_temp_path {scratch}/uwsgi;
    scgi_temp_path {scratch}/scgi;
    keepalive_requests 1000000;
    upstream model {{
        server 127.0.0.1:{upstream};
        keepalive 1024;
        keepalive_requests 1000000;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            proxy_pass http://model;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
            proxy_read_timeout 3600s;
            proxy_send_timeout 3600s;
        }}
    }}
}}
"""


def install(cache: Path) -> str:
    """From the distribution, if we may."""
    if _program() is None:
        if os.geteuid() != 0:
            raise NotHere("nginx is not installed, and only root may do that")
        run("apt-get", "install", "--yes", "--no-install-recommends", "nginx")
    return run(_program() or "nginx", "-v").strip().rpartition("/")[2]


def command(place: Place) -> Sequence[str]:
    """One worker, as there is one core."""
    config = place.scratch / "nginx.conf"
    user = "user root;" if os.geteuid() == 0 else ""
    config.write_text(
        CONFIG.format(scratch=place.scratch, user=user, upstream=place.upstream, port=place.port)
    )
    return _program() or "nginx", "-c", str(config), "-p", str(place.scratch)


def _program() -> str | None:
    return shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin")


CONTESTANT = Contestant(name="nginx", title="nginx", install=install, command=command)
