"""Ten thousand connections, storms, resets and peers that fall silent: afterwards everything is as before."""

import resource
from pathlib import Path

import pytest

from tests.hostile import outside
from tests.hostile.outside import Outside, eventually

CROWD = 10_000
SPARE_FILES = 500
WARM = 1000
LEFT_KB = 6 << 10
"""What a second crowd may take beyond the first. The allocator gives little back to the system, but all of it is free
again: if a connection left but a tenth of what it takes, this would be exceeded."""
pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


@pytest.fixture
def many_files() -> None:
    """Allow this process, and the server that it starts, files for the crowd."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CROWD + SPARE_FILES
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"the hard limit of open files is {hard}, {CROWD} connections need {wanted}")
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def sizes(server: Outside) -> tuple[int, int, int]:
    """Return what is to come back: tasks and connections by the server's word, sockets by the system's."""
    varz = server.varz()
    return varz["goroutine"], varz["connections"], server.sockets()


def wait_for(server: Outside, expected: tuple[int, int, int]) -> None:
    eventually(
        lambda: sizes(server) == expected, limit_s=60, what=lambda: (sizes(server), expected, server.log()[-2000:])
    )


@pytest.mark.usefixtures("many_files")
def test_ten_thousand_come_at_once_and_leave_in_every_way(tmp_path: Path) -> None:
    """A third says nothing more and is reset, a third is half closed, a third closes; then the next crowd."""
    with outside.outside(tmp_path, "gateway.loginTimeout=120s") as server:
        for sock in outside.log_in(server.address(), [f"w{n}" for n in range(WARM)], limit_s=60):
            sock.close()
        eventually(lambda: server.varz()["connections"] == 0)
        before, memory = sizes(server), list[int]()
        for _ in range(2):
            crowd = outside.log_in(server.address(), [f"u{n}" for n in range(CROWD)], limit_s=120)
            tasks, _, sockets = before
            assert sizes(server) == (tasks, CROWD, sockets + CROWD)  # a connection has no task
            assert server.varz()["user_handler_conn_count"] == CROWD
            memory.append(server.private_kb())
            leave(crowd)
            wait_for(server, before)
            memory.append(server.private_kb())
        assert server.varz()["user_handler_conn_count"] == 0
        assert server.metric("triolet_gateway_crashes_total") == 0
        assert server.metric("triolet_gateway_open_sockets") == 0
        first_crowd, first_left, second_crowd, second_left = memory
        assert second_crowd - first_crowd < LEFT_KB, memory
        assert second_left - first_left < LEFT_KB, memory


def leave(crowd: list[outside.socket.socket]) -> None:
    for number, sock in enumerate(crowd):
        match number % 3:
            case 0:
                outside.reset(sock)
            case 1:
                sock.shutdown(outside.socket.SHUT_WR)
            case _:
                sock.close()
    outside.wait_closed(crowd[1::3])
    for sock in crowd[1::3]:
        sock.close()
