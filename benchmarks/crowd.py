"""`idle_100k`: messages between a few, beside a crowd of connections that only are there and PING now and then.

The limit of open files is one for each process. So the server gets as many workers (`gateway.workers`) as it takes to
hold the crowd, and the crowd is logged in by as many processes of the load generator, one after another.
"""

import json
import math
import resource
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import attrs

from benchmarks.generator import LONGEST_ROW_S, CannotDrive, command, compiled, drive
from benchmarks.servers import Memory, RunningServer, kernel_memory, started

NAME = "idle_100k"
WANTED, WANTED_QUICK = 100_000, 2000
PAIRS, RATE = 50, 900
SECONDS, SECONDS_QUICK = 30, 3
LIMIT_S = 300
PING_S = 60
"""Each connection of the crowd sends a PING once in so many seconds, as the SDKs do; `connIdleTime` is 3 minutes."""
SPARE_FILES = 200
"""Descriptors that a server or a load generator may need beside those of its clients."""
MOST_WORKERS = 64
"""The upper bound of `gateway.workers`."""
SETTLE_S = 2
WORKERS = "gateway.workers="


@attrs.frozen
class Plan:
    """Who holds the crowd."""

    idle: int
    workers: int
    """0: the core process takes the sockets itself."""
    shares: Sequence[tuple[int, int]]
    """For each process of the load generator the number of its first connection, and how many it has."""


def plan(wanted: int, file_limit: int, *, others: int = 2 * PAIRS, workers: int | None = None) -> Plan:
    """Decide how many processes hold `wanted` connections, of which each may have `file_limit` descriptors.

    Args:
        others: Connections to the server beside the crowd; a process of their own has their other ends.
        workers: That somebody has decided on; the crowd is smaller if they cannot hold all of it.
    """
    most = wanted + others if file_limit == resource.RLIM_INFINITY else max(file_limit - SPARE_FILES, 1)
    needed = math.ceil((wanted + others) / most)
    if workers is None:
        workers = 0 if needed == 1 else min(needed, MOST_WORKERS)
    idle = max(min(wanted, max(workers, 1) * most - others), 0)
    processes = math.ceil(idle / most)
    ends = [idle * number // processes for number in range(processes + 1)] if processes else [0]
    return Plan(idle, workers, [(first, end - first) for first, end in pairwise(ends)])


def run(*, quick: bool, settings: Sequence[str]) -> dict[str, Any]:
    """Run the row and return its figures: those of an open loop, and these.

    `idle` and `held` (connections that were logged in, and that answered a PING in the end), `idle_wanted`,
    `file_limit`, `workers`, `generators`; `logins_per_second`; `core_` and `workers_` `rss_mb` and `pss_mb` (a page
    that several processes share counts for each with its part), `kb_per_connection` and `kb_per_connection_rss` (what
    the crowd added), `kernel_kb_per_connection` (both ends: what the kernel took more), `socket_buffers_mb`;
    `pings` beside the open loop, `pings_per_second`, `pong_p99_ms` of the slowest process, `pong_max_ms`;
    `crowd_generator_cores`.

    Raises:
        CannotDrive: There is no cargo.
        RuntimeError: The generator failed, or a connection was lost; its words.
    """
    binary = compiled()
    if binary is None:
        raise CannotDrive(NAME)
    wanted, file_limit = WANTED_QUICK if quick else WANTED, resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return run_with(
        binary,
        plan(wanted, file_limit, workers=workers_of(settings)),
        {"seconds": SECONDS_QUICK if quick else SECONDS, "pairs": PAIRS, "rate": RATE, "limit": LIMIT_S},
        settings,
    ) | {"idle_wanted": wanted, "file_limit": file_limit}


def workers_of(settings: Sequence[str]) -> int | None:
    """Return the number of workers that settings speak of, None if they do not."""
    given = [setting.removeprefix(WORKERS) for setting in settings if setting.startswith(WORKERS)]
    return int(given[-1]) if given else None


def run_with(
    binary: Path, plan: Plan, options: Mapping[str, float], settings: Sequence[str], *, ping_s: float = PING_S
) -> dict[str, Any]:
    """Run an open loop beside the crowd that `plan` speaks of."""
    with started([*settings, f"{WORKERS}{plan.workers}"]) as server:
        before, kernel_before = server.memory(), kernel_memory()
        with _crowd(binary, server, plan, ping_s) as crowd:
            time.sleep(SETTLE_S)  # noqa: TID251  # there is no loop here
            memory = _what_it_takes(plan.idle, (before, server.memory()), (kernel_before, kernel_memory()))
            for holder in crowd:
                holder.begin()
            found = drive(binary, server, "open_loop", options)
            found |= {"end_pss_mb": server.memory().total.pss_mb, "disk_bytes": server.disk_bytes()}
            seconds = sum(holder.login_seconds for holder in crowd)
            for holder in crowd:
                holder.stop()
            ends = [holder.end() for holder in crowd]
    found |= {"idle": plan.idle, "held": sum(end["held"] for end in ends)}
    found |= {"workers": plan.workers, "generators": len(crowd) + 1}
    found["logins_per_second"] = round(plan.idle / seconds, 1) if seconds else 0
    return found | memory | _pings(ends)


def _what_it_takes(
    idle: int, servers: tuple[Memory, Memory], kernels: tuple[dict[str, float], dict[str, float]]
) -> dict[str, float]:
    before, after = (memory.total for memory in servers)
    kernel = {name: kernels[1][name] - kernels[0][name] for name in kernels[0]}
    each = 1024 / max(idle, 1)
    return {
        "core_rss_mb": servers[1].core.rss_mb,
        "core_pss_mb": servers[1].core.pss_mb,
        "workers_rss_mb": servers[1].workers.rss_mb,
        "workers_pss_mb": servers[1].workers.pss_mb,
        "start_rss_mb": before.rss_mb,
        "start_pss_mb": before.pss_mb,
        "kb_per_connection": round((after.pss_mb - before.pss_mb) * each, 2),
        "kb_per_connection_rss": round((after.rss_mb - before.rss_mb) * each, 2),
        "kernel_kb_per_connection": round(kernel["slab_mb"] * each, 2),
        "socket_buffers_mb": round(kernel["socket_buffers_mb"], 1),
    }


def _pings(ends: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Put together what the processes found; percentiles are those of the slowest."""
    found = {
        "pings": sum(end["count"] for end in ends),
        "pings_per_second": round(sum(end["per_second"] for end in ends), 1),
        "crowd_generator_cores": round(sum(end["generator_cores"] for end in ends), 3),
    }
    for name in ("pong_p50_ms", "pong_p99_ms", "pong_max_ms"):
        found[name] = max((end[name] for end in ends if name in end), default=0)
    return found


@attrs.frozen
class Holder:
    """A process of the load generator that has logged in its share of the crowd."""

    process: "subprocess.Popen[str]"
    login_seconds: float

    def begin(self) -> None:
        """Have it begin anew to measure; what is wrong with it `end` says."""
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.write("\n")
            self.process.stdin.flush()

    def stop(self) -> None:
        """Have it stop to measure, and every connection answer once more: all at once, which is not to be measured."""
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.stdin = None

    def end(self) -> dict[str, Any]:
        """Return what was found, after `stop`.

        Raises:
            RuntimeError: A connection was lost, or does not answer.
        """
        out, problem = self.process.communicate(timeout=LONGEST_ROW_S)
        if self.process.returncode:
            raise RuntimeError(problem[-2000:])
        found: dict[str, Any] = json.loads(out)
        return found


@contextmanager
def _crowd(binary: Path, server: RunningServer, plan: Plan, ping_s: float) -> Iterator[list[Holder]]:
    with ExitStack() as stack:
        yield [stack.enter_context(_held(binary, server, first, count, ping_s)) for first, count in plan.shares]


@contextmanager
def _held(binary: Path, server: RunningServer, first: int, count: int, ping_s: float) -> Iterator[Holder]:
    """Log in a share of the crowd and hold it; a process that is still there afterwards is killed."""
    options = {"first": first, "idle": count, "ping": ping_s, "limit": LIMIT_S}
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command(binary, server, "hold", options), stdin=pipe, stdout=pipe, stderr=pipe, text=True
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                raise RuntimeError(process.communicate(timeout=LONGEST_ROW_S)[1][-2000:])
            yield Holder(process, json.loads(line)["login_seconds"])
        finally:
            process.kill()
