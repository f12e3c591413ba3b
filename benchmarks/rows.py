"""The rows: what each of them asks of the load generator and the server, and how to run one."""

import socket
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from benchmarks import crowd
from benchmarks.generator import CannotDrive, compiled, drive, drive_in_python
from benchmarks.servers import started


@attrs.frozen
class Row:
    """What a row is: a row of the generator with options, and the settings that its server gets."""

    kind: str
    options: Mapping[str, float] = attrs.field(factory=dict)
    quick: Mapping[str, float] = attrs.field(factory=dict)
    """Options that are others when only a few seconds are to be spent."""
    settings: Sequence[str] = ()
    in_python: str = ""
    """The row of `load.py` that comes closest, if there is one."""


LONG, SHORT = {"seconds": 10}, {"seconds": 3}
PAIRS = {**LONG, "pairs": 50, "window": 32}
GROUP = {**LONG, "members": 1000, "window": 8}
CALLERS = {**LONG, "connections": 16}
ROWS: dict[str, Row] = {
    "person_to_person": Row("pairs", PAIRS, SHORT, in_python="person_to_person"),
    "window_1": Row("pairs", {**LONG, "pairs": 10, "window": 1}, SHORT, in_python="window_1"),
    "open_loop_900": Row("open_loop", {**LONG, "pairs": 50, "rate": 900}, SHORT),
    "open_loop_5000": Row("open_loop", {**LONG, "pairs": 50, "rate": 5000}, SHORT),
    "group_1000": Row("group", GROUP, SHORT, in_python="group_1000"),
    "group_1000_window_1": Row("group", {**GROUP, "window": 0}, SHORT),
    "group_10000": Row("group", {**GROUP, "members": 10_000, "online": 1000}, SHORT),
    "handshakes": Row("handshakes", {"count": 2000, "parallel": 32}, {"count": 500}, in_python="handshakes"),
    "idle_memory": Row(
        "idle", {"idle": 9500, "seconds": 5, "limit": 120}, {"idle": 1000, "seconds": 1}, in_python="idle_memory"
    ),
    "websocket": Row("pairs", {**PAIRS, "websocket": 1}, SHORT),
    "http_send": Row("http_send", CALLERS, SHORT, in_python="http_send"),
    "http_send_nosync": Row("http_send", CALLERS, SHORT, ("store.sync=off",), in_python="http_send"),
    "history": Row("history", {**CALLERS, "messages": 100_000}, {**SHORT, "messages": 10_000}, in_python="history"),
}
DEAD_WEBHOOK = "dead_webhook"
NAMES = (*ROWS, crowd.NAME, DEAD_WEBHOOK)
IN_PYTHON = {"idle": "connections", "count": "logins"}
"""What options of the compiled generator are called in `load.py`, where the names differ."""
KNOWN_IN_PYTHON = {"seconds", "messages", "connections", "logins"}


def run(name: str, *, quick: bool, settings: Sequence[str]) -> dict[str, Any]:
    """Run a row against a server of its own and return its figures.

    `idle_100k` has figures of its own, see `crowd.run`.

    Every row has `count` (what it counts), `seconds`, `per_second`, `server_cpu_us_each`, `server_rss_mb` and
    `disk_bytes`; with the compiled generator also `generator_cpu_us_each`, `server_cores`, `generator_cores`, and where
    everything that was sent has to arrive, `verified`. Latencies are `<what>_p50_ms`, `_p99_ms`, `_p999_ms`, `_max_ms`,
    with `<what>` one of ack, recv, last_member, late (an open loop's own delay), or nothing for log-ins and requests.

    Raises:
        CannotDrive: The row takes the compiled generator, and there is no cargo.
        RuntimeError: The generator failed; its words.
    """
    if name == DEAD_WEBHOOK:
        return dead_webhook(quick=quick, settings=settings)
    if name == crowd.NAME:
        return crowd.run(quick=quick, settings=settings)
    row = ROWS[name]
    options = {**row.options, **(row.quick if quick else {})}
    binary = compiled()
    if binary is None and not row.in_python:
        raise CannotDrive(name)
    with started([*row.settings, *settings]) as server:
        if binary is None:
            found = drive_in_python(server, row.in_python, _in_python(options))
        else:
            found = drive(binary, server, row.kind, options)
        found["disk_bytes"] = server.disk_bytes()
    if name == "group_1000_window_1":
        found |= {"per_second": found["messages_per_second"], "deliveries_per_second": found["per_second"]}
    return found


def _in_python(options: Mapping[str, float]) -> dict[str, float]:
    known = {IN_PYTHON.get(name, name): value for name, value in options.items()}
    return {name: value for name, value in known.items() if name in KNOWN_IN_PYTHON}


def dead_webhook(*, quick: bool, settings: Sequence[str]) -> dict[str, Any]:
    """Run person_to_person without a webhook and with one whose receiver takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"webhook.httpAddr=http://127.0.0.1:{silent.getsockname()[1]}/"
        without = [run("person_to_person", quick=quick, settings=settings)]
        beside = run("person_to_person", quick=quick, settings=[*settings, address])
        without.append(run("person_to_person", quick=quick, settings=settings))
    mean = statistics.mean(each["per_second"] for each in without)
    return {**beside, "ratio": round(beside["per_second"] / mean, 3), "without": without}
