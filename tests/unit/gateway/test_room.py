"""How many connections the limit of open files leaves room for, and that the server says so."""

import resource
import sys
from pathlib import Path

import pytest
import structlog

from tests.integration.test_gateway import server_in
from triolet_gateway import _plugin
from triolet_gateway._room import SPARE_FILES, room_of_process, room_of_server


def limit_files(monkeypatch: pytest.MonkeyPatch, files: int) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda which: (files, resource.RLIM_INFINITY))


def test_each_worker_has_the_limit_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    limit_files(monkeypatch, 20_000)
    each = 20_000 - SPARE_FILES
    assert (room_of_process(), room_of_server(0), room_of_server(1), room_of_server(6)) == (each, each, each, 6 * each)


def test_no_limit_is_room_for_any_number(monkeypatch: pytest.MonkeyPatch) -> None:
    limit_files(monkeypatch, resource.RLIM_INFINITY)
    assert room_of_server(3) == sys.maxsize


def test_a_limit_below_what_a_server_needs_leaves_room_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    limit_files(monkeypatch, SPARE_FILES // 2)
    assert room_of_server(0) == 1


@pytest.mark.parametrize(
    ("most", "level", "event"),
    [
        (0, "info", "room for connections"),
        (1000, "info", "room for connections"),
        (1001, "warning", "gateway.maxConnections is out of reach"),
    ],
)
async def test_the_start_says_how_many_connections_there_can_be(
    most: int, level: str, event: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_plugin, "room_of_server", lambda workers: 1000)
    with structlog.testing.capture_logs() as logs:
        async with server_in(tmp_path, max_connections=most):
            pass
    [said] = [each for each in logs if "room" in each]
    assert (said["log_level"], said["event"], said["room"]) == (level, event, 1000)
    assert "gateway.workers" in said["way_out"]
