"""A sound file may be shorter than LMDB's page count; one that was cut off is refused all the same."""

import os
from pathlib import Path

import pytest

from triolet_core import ChannelKey, Device, Draft, StoreCorrupt
from triolet_core.store import FILE_NAME
from triolet_core.testing import open_test_broker

SERVER = Device(uid="a", is_server=True)


async def test_a_store_whose_channels_were_deleted_opens_again(tmp_path: Path) -> None:
    """A deletion gives and takes back pages that are counted and never written."""
    for count in (60, 75, 90, 110, 130, 160):
        async with open_test_broker(tmp_path) as broker:
            for _ in range(count):
                await broker.messages.send(SERVER, Draft(f"g{count}", 2, b"x" * 1500))
            await broker.channels.delete(ChannelKey(f"g{count}", 2))
    async with open_test_broker(tmp_path) as broker:
        assert broker.messages.max_seq(ChannelKey("g160", 2)) == 160


@pytest.mark.parametrize("payload", [b"x" * 100, b"x" * 30_000])
async def test_a_file_that_was_cut_off_is_refused_and_left_as_it_was(tmp_path: Path, payload: bytes) -> None:
    path = tmp_path / FILE_NAME
    async with open_test_broker(tmp_path) as broker:
        for _ in range(50):
            await broker.messages.send(SERVER, Draft("g", 2, payload))
    cut = path.stat().st_size // 2 // 4096 * 4096
    os.truncate(path, cut)
    with pytest.RaisesGroup(StoreCorrupt, allow_unwrapped=True, flatten_subgroups=True):
        async with open_test_broker(tmp_path):
            pass
    assert path.stat().st_size == cut
