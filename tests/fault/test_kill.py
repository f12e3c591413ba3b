"""kill -9 under load: what was acknowledged is there, once, with the number it was given."""

import random
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from triolet_core import ChannelKey
from triolet_core.model import person_channel_id
from triolet_core.store import FILE_NAME
from triolet_core.testing import open_test_broker

SENDER = Path(__file__).with_name("sender.py")
KILLS = 20


def run_and_kill(directory: Path, run: int, acks: int) -> list[list[str]]:
    """Let the child run until it has printed `acks` lines, kill it, return every whole line it printed."""
    with subprocess.Popen([sys.executable, str(SENDER), str(directory), str(run)], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        lines = [child.stdout.readline() for _ in range(acks)]
        child.kill()
        lines += child.stdout.readlines()
    assert child.returncode == -9
    return [line.decode().split() for line in lines if line.endswith(b"\n")]


async def newest_without_journal(directory: Path, bare: Path) -> int:
    """Return the id of the newest message that the tree alone knows."""
    shutil.rmtree(bare, ignore_errors=True)
    bare.mkdir()
    shutil.copy(directory / FILE_NAME, bare)
    async with open_test_broker(bare) as broker:
        return broker.commits.end()


@pytest.mark.slow
async def test_nothing_acknowledged_is_lost_by_twenty_kills(tmp_path: Path) -> None:
    """Conformance 58. Also: sequences have no gap, no message is there twice, unread counts agree with the log."""
    dice = random.Random(3)
    acknowledged: dict[ChannelKey, dict[int, tuple[str, str, int]]] = defaultdict(dict)
    store, behind = tmp_path / "store", 0
    for run in range(KILLS):
        lines = run_and_kill(store, run, dice.randrange(1, 400))
        behind += await newest_without_journal(store, tmp_path / "bare") < max(int(line[3]) for line in lines)
        for channel_id, uid, number, message_id, seq in lines:
            key = ChannelKey("g", 2) if channel_id == "g" else ChannelKey(person_channel_id(uid, "peer"), 1)
            assert int(seq) not in acknowledged[key]
            acknowledged[key][int(seq)] = (uid, number, int(message_id))
    assert behind > KILLS // 2  # what is looked at below was in the journal alone
    async with open_test_broker(store) as broker:
        ids: list[int] = []
        for key, expected in acknowledged.items():
            stored = []
            while page := broker.messages.sync(key, start=len(stored) + 1, end=0, limit=10_000, newer=True).messages:
                stored += page
            assert [m.seq for m in stored] == list(range(1, len(stored) + 1))
            by_seq = {m.seq: (m.sender, m.client_msg_no, m.message_id) for m in stored}
            assert {seq: by_seq.get(seq) for seq in expected} == expected
            assert len({m.client_msg_no for m in stored}) == len(stored)
            ids += [m.message_id for m in stored]
            if key.type == 1:
                assert broker.conversations.unread("peer", key) == len(stored)
        assert len(set(ids)) == len(ids)
