"""TLS, WSS, PROXY headers, Unix sockets, IPv6, inherited sockets; all on loopback."""

import os
import signal
import socket
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio_websocket
import trustme

import triolet_protocol as wire
from tests.integration.test_gateway import server_in
from tests.jsonclient import JsonClient
from tests.unit.gateway.test_proxy import block
from tests.wkclient import Client
from triolet_core import ConfigError, Server
from triolet_gateway._listen import inherited, open_listener

AUTHORITY = trustme.CA()
KINDS = pytest.mark.parametrize("kind", ["tcp", "tls", "ws", "wss"])
V1 = b"PROXY TCP4 192.0.2.7 192.0.2.1 56324 5100\r\n"


def write_certificate(path: Path, name: str = "localhost") -> dict[str, Any]:
    """Write a new certificate; returns the settings that use it."""
    certificate = AUTHORITY.issue_cert(name)
    certificate.private_key_and_cert_chain_pem.write_to_path(path / "cert.pem")
    certificate.private_key_pem.write_to_path(path / "key.pem")
    return {"cert_file": str(path / "cert.pem"), "key_file": str(path / "key.pem")}


@asynccontextmanager
async def tls_server(path: Path, **settings: Any) -> AsyncIterator[Server]:
    both = {"tls_addr": "127.0.0.1:0", "wss_addr": "wss://127.0.0.1:0"}
    async with server_in(path, **both, **write_certificate(path), **settings) as server:
        yield server


def trusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    return context


@asynccontextmanager
async def client_of(server: Server, kind: str, header: bytes = b"", **extra: Any) -> AsyncIterator[Client]:
    """A client on any transport; `header` is sent before everything else."""
    address = server.broker.endpoints[kind]
    if "/" in address:
        raw: Any = await trio.open_unix_socket(address)
    else:
        host, _, port = address.rpartition(":")
        raw = await trio.open_tcp_stream(host.strip("[]"), int(port))
    if header:
        await raw.send_all(header)
    stream = raw
    if kind.startswith(("tls", "wss")):
        stream = trio.SSLStream(raw, trusting(), server_hostname="localhost", https_compatible=True)
        await stream.do_handshake()
    async with stream:
        if not kind.startswith("ws"):
            yield Client(stream)
            return
        async with trio.open_nursery() as nursery:
            websocket = await trio_websocket.wrap_client_stream(
                nursery, stream, "localhost", "/", extra_headers=extra.get("headers")
            )
            yield Client(websocket, is_websocket=True)
            await websocket.aclose()
            nursery.cancel_scope.cancel()


async def talk(ann: Client, bob: Client) -> None:
    assert await ann.connect("ann") == 1
    assert await bob.connect("bob") == 1
    big = os.urandom(100_000)
    assert (await ann.send("bob", big)).reason_code == 1
    assert (await bob.receive()).payload == big
    await bob.send("ann", b"back")
    assert (await ann.receive()).payload == b"back"


# --- TLS


@pytest.mark.parametrize("kind", ["tls", "wss"])
async def test_clients_talk_over_tls(tmp_path: Path, kind: str) -> None:
    async with tls_server(tmp_path) as server, client_of(server, kind) as ann, client_of(server, "tcp") as bob:
        await talk(ann, bob)


async def test_a_batch_of_messages_over_tls_keeps_its_order(tmp_path: Path) -> None:
    async with tls_server(tmp_path) as server, client_of(server, "tls") as ann, client_of(server, "tls") as bob:
        await ann.connect("ann")
        await bob.connect("bob")
        payloads = [str(n).encode() * 500 for n in range(300)]
        await ann.send_raw(b"".join(ann.message("bob", payload) for payload in payloads))
        assert [(await bob.receive()).payload for _ in payloads] == payloads
        acks = [(await ann.wait_for(wire.SendAckReceived)).sendack.client_seq for _ in payloads]
        assert acks == list(range(1, 301))


@pytest.mark.parametrize("kind", ["tls", "wss"])
async def test_json_rpc_is_served_over_tls(tmp_path: Path, kind: str) -> None:
    async with tls_server(tmp_path) as server, client_of(server, kind) as opened:
        ann = JsonClient(opened.stream, is_websocket=kind == "wss")
        assert (await ann.connect("ann"))["result"]["reasonCode"] == 1


@pytest.mark.parametrize("kind", ["tls", "wss"])
@pytest.mark.parametrize("data", [b"\x10\x05hello", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x00\x05hello"])
async def test_what_is_no_tls_ends_that_connection_only(tmp_path: Path, kind: str, data: bytes) -> None:
    async with tls_server(tmp_path) as server:
        host, _, port = server.broker.endpoints[kind].rpartition(":")
        async with await trio.open_tcp_stream(host, int(port)) as stream:
            await stream.send_all(data)
            await Client(stream).wait_closed()
        async with client_of(server, kind) as ann:
            assert await ann.connect("ann") == 1
        assert server.broker.metrics.values()["gateway_crashes_total"] == 0


@pytest.mark.parametrize("kind", ["tls", "wss"])
async def test_who_does_not_shake_hands_is_closed(tmp_path: Path, kind: str) -> None:
    async with tls_server(tmp_path, login_timeout=0.5) as server:
        host, _, port = server.broker.endpoints[kind].rpartition(":")
        async with await trio.open_tcp_stream(host, int(port)) as stream:
            await Client(stream).wait_closed()


async def test_a_kicked_client_hears_the_good_bye_of_tls(tmp_path: Path) -> None:
    """Not cut off: what was said before the end is whole."""
    async with tls_server(tmp_path) as server, client_of(server, "tls") as ann:
        await ann.connect("ann")
        await ann.send_raw(ann.connection.send(wire.Disconnect(0, "")))
        assert await ann.stream.receive_some() == b""


async def test_a_client_over_tls_that_does_not_read_is_dropped(tmp_path: Path) -> None:
    async with tls_server(tmp_path, outbox_bytes=65536) as server, client_of(server, "tls") as bob:
        bob.stream.transport_stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await bob.connect("bob")
        async with client_of(server, "tcp") as ann:
            await ann.connect("ann")
            for _ in range(400):
                await ann.send("bob", b"x" * 32_000)
                if not server.broker.presence.sessions("bob"):
                    break
        assert not server.broker.presence.sessions("bob")
        assert server.broker.metrics.values()["gateway_slow_consumers_total"] == 1


def serial_of(client: Client) -> int:
    stream = client.stream
    certificate = stream.getpeercert()
    return int(certificate["serialNumber"], 16)


async def test_a_new_certificate_is_used_after_sighup_and_a_broken_one_is_not(tmp_path: Path) -> None:
    async with tls_server(tmp_path) as server, client_of(server, "tls") as old:
        await old.connect("old")
        before = serial_of(old)
        write_certificate(tmp_path)
        os.kill(os.getpid(), signal.SIGHUP)
        with trio.fail_after(5):
            while await serial_now(server) == before:
                await trio.sleep(0.01)
        await old.ping()
        after = await serial_now(server)
        (tmp_path / "cert.pem").write_text("broken")
        os.kill(os.getpid(), signal.SIGHUP)
        for _ in range(5):
            await trio.testing.wait_all_tasks_blocked()
            assert await serial_now(server) == after


async def serial_now(server: Server) -> int:
    async with client_of(server, "tls") as visitor:
        return serial_of(visitor)


@pytest.mark.parametrize("settings", [{}, {"cert_file": "/does/not/exist", "key_file": "/does/not/exist"}])
async def test_tls_without_a_certificate_is_a_configuration_error(tmp_path: Path, settings: dict[str, str]) -> None:
    with pytest.raises(Exception) as caught:
        async with server_in(tmp_path, tls_addr="127.0.0.1:0", **settings):
            pass
    assert isinstance(caught.value.__cause__, ConfigError)
    assert "wssConfig.certFile" in str(caught.value.__cause__)


# --- PROXY headers


@KINDS
@pytest.mark.parametrize("header", [V1, block("192.0.2.7", 56324, extra=b"\x03\x00\x04abcd")], ids=["v1", "v2"])
async def test_a_balancer_of_ours_names_the_client(tmp_path: Path, kind: str, header: bytes) -> None:
    async with (
        tls_server(tmp_path, proxy_from=("127.0.0.0/8",)) as server,
        client_of(server, kind, header) as ann,
        client_of(server, kind, header) as bob,
    ):
        await talk(ann, bob)
        [session] = server.broker.presence.sessions("ann")
        seen = session.statistics()
        assert (seen.host, seen.port) == ("192.0.2.7", 56324)


async def test_a_header_may_come_in_parts_and_with_what_follows_it(tmp_path: Path) -> None:
    async with tls_server(tmp_path, proxy_from=("127.0.0.1",)) as server, client_of(server, "tcp") as ann:
        for byte in V1[:-1]:
            await ann.send_raw(bytes((byte,)))
        connect = ann.connection.connect(
            uid="ann", token="", device_id="d", device_flag=0, client_timestamp=0, private_key=os.urandom(32)
        )
        await ann.send_raw(V1[-1:] + connect)
        assert (await ann.wait_for(wire.ConnAckReceived)).connack.reason_code == 1
        assert server.broker.presence.sessions("ann")[0].statistics().host == "192.0.2.7"


@pytest.mark.parametrize("header", [V1, block("192.0.2.7", 1)])
@pytest.mark.parametrize("kind", ["tcp", "ws"])
async def test_a_header_of_anybody_else_is_no_packet(tmp_path: Path, header: bytes, kind: str) -> None:
    async with tls_server(tmp_path, login_timeout=0.5) as server:
        host, _, port = server.broker.endpoints[kind].rpartition(":")
        async with await trio.open_tcp_stream(host, int(port)) as stream:
            await stream.send_all(header)
            await Client(stream).wait_closed()
        assert server.broker.metrics.values()["gateway_crashes_total"] == 0


async def test_a_balancer_must_send_its_header_over_tcp(tmp_path: Path) -> None:
    """The standard forbids to guess: a client behind a balancer that adds none could name any address."""
    async with tls_server(tmp_path, proxy_from=("127.0.0.1",)) as server, client_of(server, "tcp") as ann:
        with pytest.raises(EOFError):
            await ann.connect("ann")


async def test_an_http_proxy_of_ours_names_the_client_in_its_request(tmp_path: Path) -> None:
    headers = [(b"X-Forwarded-For", b"6.6.6.6, 192.0.2.9")]
    async with (
        tls_server(tmp_path, proxy_from=("127.0.0.1",)) as server,
        client_of(server, "ws", headers=headers) as ann,
    ):
        await ann.connect("ann")
        assert server.broker.presence.sessions("ann")[0].statistics().host == "192.0.2.9"


async def test_an_http_header_of_anybody_else_is_not_believed(tmp_path: Path) -> None:
    async with (
        tls_server(tmp_path) as server,
        client_of(server, "ws", headers=[(b"X-Forwarded-For", b"192.0.2.9")]) as ann,
    ):
        await ann.connect("ann")
        assert server.broker.presence.sessions("ann")[0].statistics().host == "127.0.0.1"


@KINDS
async def test_connections_are_counted_by_the_client_that_the_balancer_names(tmp_path: Path, kind: str) -> None:
    async with tls_server(tmp_path, proxy_from=("127.0.0.1",), max_connections_per_address=1) as server:
        async with client_of(server, kind, V1) as ann:
            await ann.connect("ann")
            host, _, port = server.broker.endpoints[kind].rpartition(":")
            async with await trio.open_tcp_stream(host, int(port)) as twice:
                await twice.send_all(V1)
                await Client(twice).wait_closed()
            async with client_of(server, kind, V1.replace(b".7", b".8")) as bob:
                assert await bob.connect("bob") == 1
        with trio.fail_after(5):
            while server.broker.metrics.values()["gateway_open_sockets"]:
                await trio.sleep(0.01)


# --- bounds


@pytest.mark.parametrize("kind", ["tcp", "ws"])
async def test_one_connection_too_many_is_closed_and_the_place_is_free_again(tmp_path: Path, kind: str) -> None:
    async with server_in(tmp_path, max_connections=1) as server:
        async with client_of(server, kind) as ann:
            await ann.connect("ann")
            host, _, port = server.broker.endpoints[kind].rpartition(":")
            async with await trio.open_tcp_stream(host, int(port)) as stream:
                await Client(stream).wait_closed()
            assert server.broker.metrics.values()["gateway_refused_total"] == 1
        with trio.fail_after(5):
            while server.broker.metrics.values()["gateway_open_sockets"]:
                await trio.sleep(0.01)
        async with client_of(server, kind) as bob:
            assert await bob.connect("bob") == 1


@pytest.mark.parametrize("first", [b"\x10\x80\x80\x40", b'{"method":"'])
async def test_a_websocket_takes_no_more_before_the_login_than_a_socket_does(tmp_path: Path, first: bytes) -> None:
    """The library would buffer a message of five frames of a megabyte for anybody."""
    async with server_in(tmp_path) as server, client_of(server, "ws") as nobody:
        with pytest.raises((EOFError, trio_websocket.ConnectionClosed)):
            await nobody.send_raw(first + b"x" * 400_000)
            await nobody.wait_for(wire.ConnAckReceived)
        assert server.broker.metrics.values()["gateway_protocol_errors_total"] >= 1


# --- Unix, IPv6, systemd


@pytest.mark.parametrize(("kind", "setting"), [("tcp", "tcp_addr"), ("ws", "ws_addr")])
async def test_clients_talk_over_a_unix_socket(tmp_path: Path, kind: str, setting: str) -> None:
    path = tmp_path / "gate.sock"
    async with server_in(tmp_path, **{setting: f"unix://{path}"}) as server:
        assert server.broker.endpoints[f"{kind}+unix"] == str(path)
        async with client_of(server, f"{kind}+unix") as ann, client_of(server, f"{kind}+unix") as bob:
            await talk(ann, bob)
            assert server.broker.presence.sessions("ann")[0].statistics().host == "unix"
    assert not path.exists()


async def test_the_socket_file_of_a_server_that_died_is_replaced_and_one_in_use_is_not(tmp_path: Path) -> None:
    path = tmp_path / "gate.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with open_listener("addr", f"unix://{path}"), pytest.raises(OSError):
        open_listener("addr", f"unix://{path}")
    path.unlink()
    path.write_text("a file")
    with pytest.raises(OSError):
        open_listener("addr", f"unix://{path}")
    assert path.read_text() == "a file"


async def test_clients_talk_over_ipv6(tmp_path: Path) -> None:
    async with (
        server_in(tmp_path, tcp_addr="tcp://[::1]:0", ws_addr="ws://[::1]:0") as server,
        client_of(server, "tcp") as ann,
        client_of(server, "ws") as bob,
    ):
        await talk(ann, bob)
        assert server.broker.presence.sessions("ann")[0].statistics().host == "::1"


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no dual stack here")
async def test_every_address_is_of_both_families_and_ipv4_is_shown_as_such(tmp_path: Path) -> None:
    async with server_in(tmp_path, tcp_addr="[::]:0") as server:
        port = server.broker.endpoints["tcp"].rpartition(":")[2]
        async with await trio.open_tcp_stream("127.0.0.1", int(port)) as stream:
            ann = Client(stream)
            assert await ann.connect("ann") == 1
            assert server.broker.presence.sessions("ann")[0].statistics().host == "127.0.0.1"


def test_inherited_sockets_are_known_by_their_name_or_address() -> None:
    named, plain = (socket.create_server(("127.0.0.1", 0)) for _ in range(2))
    address = f"127.0.0.1:{plain.getsockname()[1]}"
    first = 700
    for place, sock in enumerate((named, plain)):
        os.dup2(sock.fileno(), first + place)
        sock.close()
    environ = {"LISTEN_PID": "7", "LISTEN_FDS": "2", "LISTEN_FDNAMES": "ws:unknown"}
    assert inherited(environ, 8, first) == {}
    found = inherited(environ, 7, first)
    assert sorted(found) == sorted(["ws", address])
    for sock in found.values():
        sock.close()


def test_an_inherited_descriptor_that_does_not_listen_is_an_error() -> None:
    with socket.socket() as sock:
        os.dup2(sock.fileno(), 702)
    with pytest.raises(ConfigError, match="does not listen"):
        inherited({"LISTEN_PID": "7", "LISTEN_FDS": "1"}, 7, 702)
    with pytest.raises(ConfigError, match="is no socket"):
        inherited({"LISTEN_PID": "7", "LISTEN_FDS": "1"}, 7, 702)


_PROGRAM = """\
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "tcp"}
from triolet_core._cli import main
settings = ["addr=", "wsAddr=", "httpAddr=127.0.0.1:0", f"rootDir={sys.argv[2]}"]
sys.argv = ["triolet", "run", *(word for setting in settings for word in ("-e", setting))]
sys.exit(main())
"""


@pytest.mark.slow
async def test_a_server_started_by_systemd_serves_the_socket_it_is_given(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        async with trio.open_nursery() as nursery:
            command = [sys.executable, "-c", _PROGRAM, str(listener.fileno()), str(tmp_path)]
            started = await nursery.start(
                lambda task_status: trio.run_process(
                    command,
                    pass_fds=[listener.fileno()],
                    check=False,
                    capture_stdout=True,
                    capture_stderr=True,
                    task_status=task_status,
                )
            )
            with trio.fail_after(30):
                async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                    assert await Client(stream).connect("ann") == 1
            started.terminate()
