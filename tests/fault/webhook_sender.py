"""Child of test_webhook_kill: a server with the webhook that sends, and prints what was acknowledged.

Usage: python webhook_sender.py DIRECTORY URL MESSAGES RUN. It stays after the last message, until it is killed.
"""

import logging
import os
import sys
from pathlib import Path

import structlog
import trio

from triolet_core import ChannelInfo, ChannelKey, Device, Draft, Server, ServerConfig, open_server
from triolet_core.config import NodeConfig, Seconds
from triolet_core.testing import MemorySession
from triolet_webhook import WebhookConfig, plugin

GROUP = ChannelKey("g", 2)
SENDERS = 5
PER_SEND = 10


async def send(server: Server, uid: str, messages: int, run: str) -> None:
    """Nine of ten go to somebody who is online, the others to a group of people who are not."""
    for start in range(0, messages, PER_SEND):
        drafts = [Draft("peer", 1, b"x", f"{run}-{uid}-{start + n}") for n in range(PER_SEND - 1)]
        drafts.append(Draft("g", 2, b"x", f"{run}-{uid}-{start + PER_SEND - 1}"))
        receipts = await server.broker.messages.send_many(Device(uid=uid), drafts)
        pairs = zip(drafts, receipts, strict=True)
        lines = [f"ack {receipt.message_id} {draft.channel_id}\n" for draft, receipt in pairs if receipt.reason == 1]
        os.write(1, "".join(lines).encode())


async def main(directory: str, url: str, messages: str, run: str) -> None:
    webhook = WebhookConfig(
        http_addr=url,
        msg_notify_event_push_interval=Seconds(0.02),
        msg_notify_event_retry_max_count=0,
        retry_first=Seconds(0.02),
        retry_longest=Seconds(0.2),
        timeout=Seconds(2),
    )
    config = ServerConfig(node=NodeConfig(data_dir=str(Path(directory))), sections={"webhook": webhook})
    async with open_server(config, plugins=[plugin]) as server:
        server.broker.presence.register(MemorySession(Device(uid="peer")))
        senders = [f"s{n}" for n in range(SENDERS)]
        await server.broker.channels.create(GROUP, ChannelInfo(), [*senders, "away"])
        async with trio.open_nursery() as nursery:
            for uid in senders:
                nursery.start_soon(send, server, uid, int(messages) // SENDERS, run)
        os.write(1, b"sent\n")
        await trio.sleep_forever()


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))  # the output is ours
    trio.run(main, *sys.argv[1:])
