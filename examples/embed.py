"""Run a server inside another Trio program: python examples/embed.py.

Every installed plugin runs, each listener on a free port of this machine; the data is in a temporary directory.
"""

import tempfile

import trio

from triolet_core import ChannelInfo, ChannelKey, ChannelType, Device, Draft, ReasonCode, load_config, open_server
from triolet_core.model import RED_DOT

TEAM = ChannelKey("team", ChannelType.GROUP)
FREE_PORTS = ("addr=tcp://127.0.0.1:0", "wsAddr=ws://127.0.0.1:0", "httpAddr=127.0.0.1:0")


async def main(directory: str) -> None:
    """Send a message, read it back, and see who has not read it yet."""
    config = load_config(overrides=[f"rootDir={directory}", *FREE_PORTS])
    async with open_server(config) as server:
        broker = server.broker
        for kind, address in broker.endpoints.items():
            print(f"listening: {kind} {address}")
        await broker.channels.create(TEAM, ChannelInfo(name="The team"), ["ann", "bob"])
        receipt = await broker.messages.send(
            Device(uid="ann", is_server=True),
            Draft(channel_id="team", channel_type=ChannelType.GROUP, payload=b"hello team", flags=RED_DOT),
        )
        print(f"sent: {ReasonCode(receipt.reason).name}, seq {receipt.seq}")
        for message in broker.messages.sync(TEAM, start=0, end=0, limit=10, newer=False).messages:
            print(f"read back: {message.sender} wrote {message.payload.decode()!r}")
        print(f"unread of bob: {broker.conversations.unread('bob', TEAM)}")
    # Here everything has stopped, in order, and everything is on disk.


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        trio.run(main, directory)
