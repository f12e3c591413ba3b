"""kill -9 while requests are under way: each has happened wholly or not at all, and what was answered has happened."""

import random
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import trio

from triolet_core import ChannelKey
from triolet_core.testing import open_test_broker

ROOT = Path(__file__).parents[2]
KILLS = 4
CALLERS = 4
MEMBERS = 1000


def members_of(name: str) -> list[str]:
    return [f"{name}-{number:04}" for number in range(MEMBERS)]


class Run:
    """One life of the server, and what it answered."""

    def __init__(self, directory: Path, number: int, answers: int) -> None:
        self.number = number
        self.made: list[str] = []
        self._answers = answers
        self._child = subprocess.Popen(
            [sys.executable, "-m", "tests.fault.api_server", str(directory)],
            stdout=subprocess.PIPE,
            cwd=ROOT,
            text=True,
        )

    async def run(self) -> None:
        assert self._child.stdout is not None
        lines = iter(self._child.stdout.readline, "")
        address = next(line.strip() for line in lines if line.startswith("127.0.0.1:"))
        try:
            async with httpx.AsyncClient(base_url=f"http://{address}") as http, trio.open_nursery() as nursery:
                for caller in range(CALLERS):
                    nursery.start_soon(self._call, http, caller)
        finally:
            self._child.kill()
            self._child.stdout.close()
            assert self._child.wait() == -9

    async def _call(self, http: httpx.AsyncClient, caller: int) -> None:
        """Make channels, and give one channel a new list and name each time, until the server is gone."""
        for count in range(10_000):
            name = f"c{self.number}-{caller}-{count}"
            body = {"channel_id": name, "channel_type": 2, "name": name, "large": 1, "subscribers": members_of(name)}
            try:
                for each in (body, {**body, "channel_id": "one", "reset": 1}):
                    answer = await http.post("/channel", json=each)
                    assert answer.json() == {"status": 200}
            except httpx.HTTPError:
                return
            self.made.append(name)
            if len(self.made) >= self._answers:
                self._child.kill()


@pytest.mark.slow
async def test_a_request_that_is_killed_happened_wholly_or_not_at_all(tmp_path: Path) -> None:
    dice = random.Random(5)
    made: list[str] = []
    for number in range(KILLS):
        life = Run(tmp_path, number, dice.randrange(1, 12))
        with trio.fail_after(60):
            await life.run()
        made += life.made
        async with open_test_broker(tmp_path) as broker:
            rows = {row.key.id: row for row in await broker.catalog.channels(lambda row: row.key.type == 2)}
            assert set(made) <= rows.keys()
            for name, row in rows.items():
                owner = row.info.name
                assert name in (owner, "one")
                assert (row.members, row.info.large) == (MEMBERS, True)
                assert broker.channels.members(ChannelKey(name, 2)) == members_of(owner)
            assert broker.problem() is None
    assert len(made) >= KILLS
