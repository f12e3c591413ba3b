"""Peers that vanish: they never say anything again, and their machines do not say so. All of it is given back."""

from pathlib import Path

import pytest

from tests.hostile import outside
from tests.hostile.outside import eventually

EACH = 150
pytestmark = pytest.mark.slow


@pytest.mark.parametrize("kind", ["tcp", "ws"])
def test_peers_that_fall_silent_are_closed_and_their_sockets_given_back(tmp_path: Path, kind: str) -> None:
    """Some before a byte, some in the middle of a login, some logged in, some reset in between; one goes on."""
    with outside.outside(tmp_path, "gateway.loginTimeout=2s", "connIdleTime=3s") as server:
        eventually(lambda: server.varz()["connections"] == 0)
        tasks, sockets = server.varz()["goroutine"], server.sockets()
        [alive] = outside.log_in(server.address(), ["alive"])
        silent = outside.log_in(server.address(kind), [f"u{n}" for n in range(EACH)], is_websocket=kind == "ws")
        for number in range(EACH):
            sock = outside.new_socket(number)
            sock.setblocking(True)
            sock.connect(server.address(kind))
            silent.append(sock)
            if number % 3:
                sock.sendall(outside.UPGRADE[:40] if kind == "ws" else outside.connect_frame("half")[:20])
            if number % 3 == 2:
                outside.reset(silent.pop())
        open_now = set(silent)

        def is_closed_but_for_one() -> bool:
            alive.sendall(b"\x70")
            for sock in outside.ended(open_now):
                open_now.remove(sock)
                sock.close()
            return not open_now and server.varz()["connections"] == 1

        eventually(is_closed_but_for_one)
        assert server.metric("triolet_gateway_crashes_total") == 0
        assert server.metric("triolet_gateway_idle_closed_total") >= EACH
        alive.close()
        eventually(lambda: server.metric("triolet_gateway_open_sockets") == 0)
        eventually(lambda: server.sockets() == sockets)
        eventually(lambda: server.varz()["goroutine"] == tasks)


def test_storms_of_resets_leave_nothing(tmp_path: Path) -> None:
    """Connected and reset at once, in the middle of a login, and after it, on every port of the server."""
    with outside.outside(tmp_path) as server:
        before = server.varz()["goroutine"], server.sockets()
        for round_ in range(3):
            for kind, said in (("tcp", outside.connect_frame("u")), ("ws", outside.UPGRADE), ("http", b"GET /varz ")):
                for number in range(EACH):
                    sock = outside.new_socket(number)
                    sock.setblocking(True)
                    sock.connect(server.address(kind))
                    sock.sendall(said[: (number * 7 + round_) % (len(said) + 1)])
                    outside.reset(sock)
        eventually(lambda: server.metric("triolet_gateway_open_sockets") == 0)
        eventually(lambda: (server.varz()["goroutine"], server.sockets()) == before)
        assert server.metric("triolet_gateway_crashes_total") == 0
        assert server.metric("triolet_api_failed_total") == 0
        assert "connection crashed" not in server.log()
        assert "Traceback" not in server.log()
