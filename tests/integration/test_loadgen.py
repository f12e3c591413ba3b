"""The load generator of the benchmarks speaks with a server as clients do, and counts what is there."""

import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from benchmarks import crowd, rows
from benchmarks.generator import CRATE, drive
from benchmarks.servers import started

# Building takes most of the time; not what the rows find but that they find everything is tested here.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(shutil.which("cargo") is None, reason="there is no cargo"),
]
SMALL = {
    "seconds": 0.2,
    "pairs": 3,
    "window": 4,
    "rate": 200,
    "members": 12,
    "online": 9,
    "idle": 15,
    "count": 20,
    "connections": 2,
    "messages": 150,
}
SIMILAR = {"window_1", "open_loop_5000", "group_1000", "http_send"}
"""Rows that differ from others in what is made small here."""


@pytest.fixture(scope="module")
def generator() -> Path:
    """Build it without optimizing, which is faster."""
    subprocess.run(["cargo", "build", "--quiet", "--locked"], cwd=CRATE, check=True)
    return CRATE / "target" / "debug" / "triolet-loadgen"


def small(options: Mapping[str, float]) -> dict[str, float]:
    """Return the options of a row with numbers so small that it is over at once; 0 and 1 have a meaning and stay."""
    return {name: value if value < 2 else SMALL.get(name, value) for name, value in options.items()}


@pytest.mark.parametrize("name", sorted(rows.ROWS.keys() - SIMILAR))
def test_what_a_row_sends_arrives(generator: Path, name: str) -> None:
    row = rows.ROWS[name]
    with started(row.settings) as server:
        found = drive(generator, server, row.kind, small(row.options))
    assert found["count"] > 0
    assert found.get("verified", True) is True
    assert found.get("repeated", 0) == 0
    assert found["server_rss_mb"] > 1


def test_a_crowd_is_held_by_several_processes_on_both_sides(generator: Path) -> None:
    """Each of it answers in the end; what the server takes is that of all its processes."""
    plan = crowd.Plan(idle=15, workers=2, shares=[(0, 7), (7, 8)])
    options = {"seconds": 0.5, "pairs": 3, "rate": 200, "limit": 30}
    found = crowd.run_with(generator, plan, options, [], ping_s=0.1)
    assert (found["idle"], found["held"], found["generators"]) == (15, 15, 3)
    assert found["verified"] is True
    assert found["pings"] > 15
    assert 0 < found["pong_p99_ms"] <= found["pong_max_ms"]
    assert 10 < found["core_pss_mb"] <= found["core_rss_mb"]
    assert 20 < found["workers_pss_mb"] <= found["workers_rss_mb"]
    assert found["start_pss_mb"] > found["core_pss_mb"]


def test_a_crowd_of_which_one_is_lost_is_an_error(generator: Path) -> None:
    """Here the server takes it for dead: it is silent for longer than connections may be."""
    plan = crowd.Plan(idle=2, workers=0, shares=[(0, 2)])
    options = {"seconds": 4, "pairs": 1, "rate": 50, "limit": 30}
    with pytest.raises(RuntimeError, match="the connection of i"):
        crowd.run_with(generator, plan, options, ["connIdleTime=2s"], ping_s=60)


def test_every_member_that_is_online_counts(generator: Path) -> None:
    options = {"members": 12, "online": 9, "window": 2, "count": 5, "seconds": 60}
    with started([]) as server:
        found = drive(generator, server, "group", options)
    assert (found["messages"], found["count"], found["verified"]) == (5, 45, True)
    assert found["ack_max_ms"] > 0
    assert found["recv_max_ms"] == found["last_member_max_ms"]


def test_pairs_end_by_count(generator: Path) -> None:
    with started([]) as server:
        found = drive(generator, server, "pairs", {"pairs": 2, "window": 3, "count": 25, "seconds": 60})
    assert (found["sent"], found["received"], found["stored"]) == (25, 25, 25)
    assert found["decrypted"] == 2
    assert found["ack_p50_ms"] <= found["ack_p99_ms"] <= found["ack_max_ms"]


def test_large_payloads_arrive_whole(generator: Path) -> None:
    with started([]) as server:
        options = {"pairs": 1, "window": 2, "count": 6, "seconds": 60, "size": 100_000}
        by_socket = drive(generator, server, "pairs", options)
    with started([]) as server:
        by_websocket = drive(generator, server, "pairs", {**options, "websocket": 1})
    assert (by_socket["verified"], by_websocket["verified"]) == (True, True)


def refusal(generator: Path, *words: str) -> str:
    done = subprocess.run([generator, *words], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (1, "")
    return done.stderr


def test_nothing_but_loopback_is_loaded(generator: Path) -> None:
    assert "192.0.2.1:5100 is not a loopback address" in refusal(generator, "pairs", "--tcp", "192.0.2.1:5100")


def test_a_server_that_is_not_there_is_an_error(generator: Path) -> None:
    assert "nobody takes the connection" in refusal(generator, "handshakes", "--tcp", "127.0.0.1:1")


def test_a_refused_message_is_an_error(generator: Path) -> None:
    with started(["gateway.ratePerConnection=0.001", "gateway.rateBurst=3000s"]) as server:
        words = ["pairs", "--tcp", server.addresses["tcp"], "--pairs", "1", "--window", "8"]
        assert "refused for reason 22" in refusal(generator, *words)


def test_what_it_prints_is_one_object(generator: Path) -> None:
    with started([]) as server:
        words = [generator, "handshakes", "--tcp", server.addresses["tcp"], "--count", "3"]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["count"] == 3
    assert "server_cpu_us_each" not in found
