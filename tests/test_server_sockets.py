"""Where the server listens, and what is set on its sockets."""

from __future__ import annotations

import errno
import functools
import os
import socket

import pytest
import structlog.testing
import trio

from trio_sse_proxy.listening import SEND_BUFFER, Acceptor, BindError, open_sockets, url_of
from trio_sse_proxy.server import Listening, Server


def opened(bind, **options):
    sockets = open_sockets(bind, **options)
    for sock in sockets:
        sock.close()
    return sockets


NO_HOST_AND_PORT = ["8787", "localhost", "localhost:", "localhost:x", "localhost:-1"]


@pytest.mark.parametrize("bind", [*NO_HOST_AND_PORT, "127.0.0.1:65536", "::1:87", "127.0.0.1:²"])
def test_what_is_no_host_and_port_is_refused_in_words(bind):
    with pytest.raises(BindError, match="cannot listen on"):
        open_sockets(bind)


def test_an_address_of_another_machine_is_refused_in_words():
    with pytest.raises(BindError, match=r"cannot listen on 192\.0\.2\.1:0: .*address"):
        open_sockets("192.0.2.1:0")


def test_an_unknown_host_is_refused_in_words(monkeypatch):
    def unknown(*args, **kwargs):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(BindError, match="Name or service not known"):
        open_sockets("nowhere.invalid:8787")


def test_an_occupied_port_is_refused_in_words():
    (taken,) = open_sockets("127.0.0.1:0")
    with taken, pytest.raises(BindError, match="in use"):
        open_sockets(f"127.0.0.1:{taken.getsockname()[1]}")


def test_a_port_occupied_in_one_family_is_refused_and_leaves_nothing_open(monkeypatch):
    """Half of `localhost` would mean that another program answers some clients."""
    (taken,) = open_sockets("127.0.0.1:0")
    port = taken.getsockname()[1]
    hosts = ("127.0.0.3", "127.0.0.1")  # that port of the first is nobody's
    found = [(socket.AF_INET, 1, 6, "", (host, port)) for host in hosts]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: found)
    with taken, pytest.raises(BindError, match="in use"):
        open_sockets("localhost:1")
    monkeypatch.undo()
    opened(f"127.0.0.3:{port}")


def test_a_family_the_machine_does_not_have_is_left_out(monkeypatch):
    found = [
        (socket.AF_INET6, 1, 6, "", ("2001:db8::1", 0, 0, 0)),
        (socket.AF_INET, 1, 6, "", ("127.0.0.1", 0)),
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: found)
    assert len(opened("localhost:0")) == 1


def test_every_address_of_a_name_gets_the_same_port(monkeypatch):
    found = [
        (socket.AF_INET, 1, 6, "", ("127.0.0.1", 0)),
        (socket.AF_INET, 1, 6, "", ("127.0.0.2", 0)),
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: found)
    sockets = open_sockets("localhost:0")
    names = [sock.getsockname() for sock in sockets]
    for sock in sockets:
        sock.close()
    assert [host for host, _ in names] == ["127.0.0.1", "127.0.0.2"]
    assert names[0][1] == names[1][1] != 0


def test_urls_name_scheme_address_and_port():
    (sock,) = open_sockets("127.0.0.1:0")
    with sock:
        port = sock.getsockname()[1]
        assert url_of(sock, tls=False) == f"http://127.0.0.1:{port}"
        assert url_of(sock, tls=True) == f"https://127.0.0.1:{port}"


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
def test_ipv6_addresses_come_and_go_in_brackets():
    try:
        (sock,) = open_sockets("[::1]:0")
    except BindError:
        pytest.skip("no IPv6 here")
    with sock:
        assert url_of(sock, tls=False) == f"http://[::1]:{sock.getsockname()[1]}"
        assert sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 1


def test_accepted_connections_inherit_what_notices_dead_clients():
    (listener,) = open_sockets("127.0.0.1:0", write_stall_timeout=1.5)
    with listener, socket.create_connection(listener.getsockname()):
        listener.setblocking(True)
        accepted = listener.accept()[0]
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) <= 2 * SEND_BUFFER
            if hasattr(socket, "TCP_USER_TIMEOUT"):
                assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 6000


@pytest.mark.parametrize("error", [errno.EMFILE, errno.ECONNABORTED])
async def test_accepting_goes_on_after_an_error(error, monkeypatch, autojump_clock):
    class Again(Exception):
        pass

    class Failing:
        """A listening socket whose first `accept` fails."""

        failed = False

        def accept(self):
            if not self.failed:
                self.failed = True
                raise OSError(error, os.strerror(error))
            raise Again

    async def ready(sock):
        await trio.lowlevel.checkpoint()

    monkeypatch.setattr(trio.lowlevel, "wait_readable", ready)
    with structlog.testing.capture_logs() as logs, pytest.raises(Again):
        await Acceptor(Failing()).accept()
    assert len(logs) == (error == errno.EMFILE)
    assert trio.current_time() == (0.1 if error == errno.EMFILE else 0)


def test_a_certificate_that_cannot_be_read_is_refused_in_words(tmp_path):
    app = functools.partial(print)
    missing = str(tmp_path / "none.pem")
    with pytest.raises(BindError, match=r"cannot use certificate .*none\.pem"):
        Server(app, Listening(certfile=missing, keyfile=missing))
    (tmp_path / "bad.pem").write_text("rubbish")
    with pytest.raises(BindError, match="cannot use certificate"):
        Server(app, Listening(certfile=str(tmp_path / "bad.pem"), keyfile=missing))
