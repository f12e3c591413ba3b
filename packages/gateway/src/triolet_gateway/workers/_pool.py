"""The worker processes: started with the gateway, started again when they end, reaped when it stops."""

import errno
import socket
import subprocess
import sys
from functools import partial

import attrs
import msgspec
import trio

from triolet_core import ConfigError
from triolet_gateway._admission import Peer
from triolet_gateway._gateway import Gateway
from triolet_gateway._listen import Serve
from triolet_gateway._room import room_of_process
from triolet_gateway.workers import _orders as orders
from triolet_gateway.workers import _reports as reports
from triolet_gateway.workers._link import Link, LinkStalled
from triolet_gateway.workers._worker import Worker

READY_TIMEOUT_S = 60.0
"""How long a worker may take until it serves; loading the modules is most of it."""
STOP_TIMEOUT_S = 2.0
"""How long a worker may take to end when its link does; then it is killed."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0
"""Between the end of a worker and its successor; doubled each time, until one has lived for `LONG_LIFE_S`."""
LONG_LIFE_S = 60.0


class Pool:
    """Hands sockets to the worker that has the fewest."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._workers: set[Worker] = set()
        self._room = room_of_process()
        self.has_tls = False

    def __enter__(self) -> None:
        """Collect orders to all workers, without a checkpoint meanwhile."""
        for worker in self._workers:
            worker.link.__enter__()

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.link.__exit__()

    def serve(self, kind: int) -> Serve:
        """Return what is to be done with an accepted socket."""
        return partial(self._serve, kind)

    def _serve(self, kind: int, gateway: Gateway, sock: socket.socket, peer: Peer) -> None:
        workers = [worker for worker in self._workers if worker.is_ready]
        if not workers:
            raise OSError("there is no worker")
        worker = min(workers, key=lambda worker: len(worker.sessions))
        if len(worker.sessions) >= self._room:
            raise OSError(errno.EMFILE, f"each worker has {self._room} (limit of open files); see gateway.workers")
        worker.serve(sock, peer, kind)

    async def drain(self) -> None:
        """Wait until nothing waits for any client."""
        async with trio.open_nursery() as nursery:
            for worker in self._workers:
                nursery.start_soon(worker.drain)

    def reload(self) -> None:
        """Have every worker read the certificate again."""
        for worker in self._workers:
            worker.order([orders.encode(orders.Reload())])

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Keep the workers running; ready when all of them are.

        Raises:
            ConfigError: One ended before it served.
        """
        async with trio.open_nursery() as lives:
            async with trio.open_nursery() as starting:
                for number in range(1, self._gateway.config.workers + 1):
                    starting.start_soon(lives.start, self._keep, number)
            task_status.started()

    async def _keep(self, number: int, *, task_status: trio.TaskStatus[None]) -> None:
        ready = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(self._live, number, ready, is_first=True))
            await ready.wait()
            task_status.started()
        pause = FIRST_PAUSE_S
        while True:
            await trio.sleep(pause)
            began = trio.current_time()
            await self._live(number, trio.Event(), is_first=False)
            is_long = trio.current_time() - began > LONG_LIFE_S
            pause = FIRST_PAUSE_S if is_long else min(2 * pause, LONGEST_PAUSE_S)

    async def _live(self, number: int, ready: trio.Event, *, is_first: bool) -> None:
        """Run one process until it ends, or is cancelled."""
        ours, theirs = socket.socketpair()
        link = Link(ours, reports.decoder)
        worker = Worker(self._gateway, self, link, number)
        process, connections = None, 0
        problem = ""
        try:
            with theirs:
                command = [sys.executable, "-m", "triolet_gateway.workers", str(theirs.fileno())]
                process = await trio.lowlevel.open_process(
                    command, stdin=subprocess.DEVNULL, pass_fds=(theirs.fileno(),)
                )
            self._workers.add(worker)
            settings = msgspec.json.encode(attrs.asdict(self._gateway.config))
            link.put(orders.encode(orders.Start(settings, self.has_tls)))
            problem = await self._talk(worker, ready)
        finally:
            self._workers.discard(worker)
            link.close()
            with trio.move_on_after(2 * STOP_TIMEOUT_S, shield=True):
                connections = await worker.lose()
                if process is not None:
                    await _reap(process)
        self._gateway.counters.workers_lost_total += 1
        status = process.returncode
        if is_first and not ready.is_set():
            raise ConfigError("gateway.workers", f"a worker ended before it served (status {status}) {problem}")
        self._gateway.log.error("worker lost", worker=number, status=status, problem=problem, connections=connections)

    async def _talk(self, worker: Worker, ready: trio.Event) -> str:
        """Exchange frames until the link ends; returns what was wrong, if that is known."""
        problem = ""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(worker.link.write_forever)
                nursery.start_soon(_see_that_it_serves, ready)
                await worker.read_forever(ready)
                nursery.cancel_scope.cancel()
        except* LinkStalled:
            problem = "it reads nothing"
        except* trio.TooSlowError:
            problem = "it did not serve in time"
        except* OSError:
            problem = "the link broke"
        except* (ValueError, msgspec.MsgspecError) as group:
            problem = f"what it says is not to be understood: {group.exceptions[0]}"
        return problem


async def _see_that_it_serves(ready: trio.Event) -> None:
    with trio.fail_after(READY_TIMEOUT_S):
        await ready.wait()


async def _reap(process: trio.Process) -> None:
    """Wait for the end of a process whose link is closed; one that does not end is killed."""
    with trio.move_on_after(STOP_TIMEOUT_S):
        await process.wait()
    if process.returncode is None:
        process.kill()
        await process.wait()
