"""examples/webhook_receiver, run as its reader would."""

import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import trio

from tests.fault.test_webhook_kill import free_port
from tests.integration.test_webhook import ANN, online, serving
from triolet_core import Server
from triolet_core.config import Seconds
from triolet_core.testing import draft
from triolet_webhook._receiver import SIGNATURE, TIMESTAMP, signature

EXAMPLE = Path(__file__).parents[2] / "examples" / "webhook_receiver" / "receiver.py"


class Output:
    """Lines of the process, read as far as they are asked for."""

    def __init__(self, stream: trio.abc.ReceiveStream) -> None:
        self.stream = stream
        self.text = ""

    async def wait_for(self, line: str) -> None:
        with trio.fail_after(20):
            while f"{line}\n" not in self.text:
                data = await self.stream.receive_some()
                assert data, f"the receiver ended without {line!r}: {self.text}"
                self.text += bytes(data).decode()


@asynccontextmanager
async def example(secret: str) -> AsyncIterator[tuple[str, Output]]:
    address = f"127.0.0.1:{free_port()}"
    words = [sys.executable, str(EXAMPLE), address]
    environ = {**os.environ, "SECRET": secret}
    process = await trio.lowlevel.open_process(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environ)
    try:
        yield f"http://{address}/webhook", Output(process.stdout)
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
            await process.stdout.aclose()


@asynccontextmanager
async def served(path: Path, url: str, **more: object) -> AsyncIterator[Server]:
    settings = {"pre_send_url": url, "pre_send_timeout": Seconds(10), "msg_notify_event_retry_max_count": 0}
    async with serving(path, http_addr=url, retry_longest=Seconds(0.2), **settings, **more) as server:
        yield server


async def test_it_takes_messages_presence_and_questions(tmp_path: Path) -> None:
    async with example("s3cret") as (url, output), served(tmp_path, url, secret="s3cret") as server:
        online(server, ANN)  # also waits for the receiver, which takes a moment to start
        await output.wait_for("ann is online with device 0")
        reasons = [
            (await server.broker.messages.send(ANN, draft("bob", text))).reason
            for text in (b"hello", b"damn it", b"to the Casino")
        ]
        assert reasons == [1, 1, 11]
        await output.wait_for("ann -> bob: hello")
        await output.wait_for("ann -> bob: **** it")
        await output.wait_for("push to bob: **** it")


async def test_it_refuses_what_is_not_freshly_signed_by_its_secret() -> None:
    body, now = b'["ann-0-1-1-1-1"]', str(int(time.time()))
    old = str(int(time.time()) - 3600)
    cases = [
        ({}, 401),
        ({TIMESTAMP: now, SIGNATURE: signature("other", now, body)}, 401),
        ({TIMESTAMP: now, SIGNATURE: signature("s3cret", now, b"[]")}, 401),
        ({TIMESTAMP: old, SIGNATURE: signature("s3cret", old, body)}, 401),
        ({TIMESTAMP: now, SIGNATURE: signature("s3cret", now, body)}, 200),
    ]
    async with example("s3cret") as (url, output), httpx.AsyncClient(trust_env=False) as client:
        with trio.fail_after(20):
            while True:
                try:
                    await client.get(url)
                    break
                except httpx.ConnectError:
                    await trio.lowlevel.checkpoint()  # it is starting
        for headers, status in cases:
            answer = await client.post(f"{url}?event=user.onlinestatus", content=body, headers=headers)
            assert answer.status_code == status
        await output.wait_for("ann is online with device 0")
