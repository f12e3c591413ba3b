"""What is left of a connection that has ended: nothing."""

import gc
from pathlib import Path

import pytest
import trio

from tests.integration.test_gateway import server_in
from tests.wkclient import client

KINDS = pytest.mark.parametrize("kind", ["tcp", "ws"])


@KINDS
async def test_nothing_keeps_a_connection_that_is_gone(tmp_path: Path, kind: str) -> None:
    """Whoever comes and goes without pause would fill the memory with what waits for its idle time, 3 minutes."""
    async with server_in(tmp_path) as server:
        async with client(server, kind) as ann:
            await ann.connect("ann")
            [session] = server.broker.presence.sessions("ann")
            kept = type(session)
            del session
        with trio.fail_after(5):
            while server.broker.metrics.values()["gateway_open_sockets"]:
                await trio.sleep(0.01)
        gc.collect()
        assert [each for each in gc.get_objects() if isinstance(each, kept)] == []
