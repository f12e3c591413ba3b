"""Workers of a gateway as tasks of the test's process: quick to start, and their code can be replaced."""

import os
import socket

import trio

from triolet_gateway.workers import _process


class ProcessHere:
    """Stands for a `trio.Process`."""

    def __init__(self) -> None:
        self.returncode: int | None = None
        self._has_ended = trio.Event()

    async def run(self, descriptor: int) -> None:
        await _process.serve(socket.socket(fileno=descriptor))
        self.returncode = 0
        self._has_ended.set()

    async def wait(self) -> int:
        await self._has_ended.wait()
        return 0


async def open_process_here(command: list[str], **_: object) -> ProcessHere:
    """Stand for `trio.lowlevel.open_process`."""
    here = ProcessHere()
    trio.lowlevel.spawn_system_task(here.run, os.dup(int(command[-1])))
    return here
