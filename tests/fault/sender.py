"""Child of test_kill: sends for ever and prints each acknowledgement once it has it. Ends by being killed."""

import os
import sys
from pathlib import Path

import attrs
import trio

from triolet_core import ChannelInfo, ChannelKey, Device, Draft, ServerConfig, open_broker

GROUP = ChannelKey("g", 2)


async def send_for_ever(broker: object, uid: str, run: str) -> None:
    device = Device(uid=uid)
    number = 0
    while True:
        drafts = [
            Draft(
                *(("g", 2) if i % 2 else ("peer", 1)),
                payload=f"{uid}".encode(),
                client_msg_no=f"{run}-{uid}-{number + i}",
            )
            for i in range(8)
        ]
        number += len(drafts)
        receipts = await broker.messages.send_many(device, drafts)  # type: ignore[attr-defined]
        lines = [
            f"{d.channel_id} {uid} {d.client_msg_no} {r.message_id} {r.seq}\n"
            for d, r in zip(drafts, receipts, strict=True)
            if r.reason == 1
        ]
        os.write(1, "".join(lines).encode())


async def main(directory: str, run: str) -> None:
    config = ServerConfig()
    config = attrs.evolve(config, node=attrs.evolve(config.node, data_dir=str(Path(directory))))
    async with open_broker(config) as broker, trio.open_nursery() as nursery:
        senders = [f"s{n}" for n in range(6)]
        await broker.channels.create(GROUP, ChannelInfo(), [*senders, "peer"])
        for uid in senders:
            nursery.start_soon(send_for_ever, broker, uid, run)


if __name__ == "__main__":
    trio.run(main, sys.argv[1], sys.argv[2])
