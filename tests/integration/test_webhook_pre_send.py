"""The question before a message is stored. Source: seed 004 (message callback); conformance 96."""

import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio
from quart import Response

from tests.integration.test_webhook import ANN, serving
from tests.webhook_receiver import Push, TestReceiver, open_receiver
from triolet_core import ChannelKey, Draft, ReasonCode, Receipt, Server
from triolet_core.config import Seconds
from triolet_core.model import person_channel_id
from triolet_core.testing import draft

ANN_BOB = ChannelKey(person_channel_id("ann", "bob"), 1)


@pytest.fixture
async def receiver() -> AsyncIterator[TestReceiver]:
    async with open_receiver("/ask") as opened:
        yield opened


def says(answer: Any, status: int = 200) -> Any:
    """An answer function that always gives this."""

    async def answer_it(push: Push) -> Response:
        return Response(answer if isinstance(answer, (str, bytes)) else json.dumps(answer), status)

    return answer_it


def stored(server: Server) -> list[bytes]:
    page = server.broker.messages.sync(ANN_BOB, start=0, end=0, limit=10, newer=True)
    return [message.payload for message in page.messages]


async def ask(tmp_path: Path, receiver: TestReceiver, **settings: Any) -> tuple[Receipt, list[bytes]]:
    """Send one message from ann to bob; returns its receipt and what is stored."""
    settings = {"pre_send_url": receiver.url, "pre_send_timeout": Seconds(5), **settings}
    async with serving(tmp_path, **settings) as server:
        receipt = await server.broker.messages.send(ANN, Draft("bob", 1, b"hello", "no1"))
        return receipt, stored(server)


async def test_a_yes_lets_it_pass(tmp_path: Path, receiver: TestReceiver) -> None:
    receiver.answer = says({"allow": True})
    receipt, payloads = await ask(tmp_path, receiver)
    assert (receipt.reason, payloads) == (1, [b"hello"])
    [push] = receiver.pushes
    assert push.event == "msg.before_send"
    assert push.json == {
        "header": {"no_persist": 0, "red_dot": 0, "sync_once": 0},
        "setting": 0,
        "client_msg_no": "no1",
        "from_uid": "ann",
        "device_id": "ann1",
        "device_flag": 0,
        "channel_id": "bob",
        "channel_type": 1,
        "expire": 0,
        "payload": base64.b64encode(b"hello").decode(),
    }


@pytest.mark.parametrize(("answer", "reason"), [({"allow": False}, 11), ({"allow": False, "reason": 42}, 42)])
async def test_a_no_refuses_it_with_the_reason(
    tmp_path: Path, receiver: TestReceiver, answer: dict[str, Any], reason: int
) -> None:
    receiver.answer = says(answer)
    receipt, payloads = await ask(tmp_path, receiver)
    assert (receipt.reason, payloads) == (reason, [])


async def test_a_payload_takes_the_place_of_the_senders(tmp_path: Path, receiver: TestReceiver) -> None:
    receiver.answer = says({"allow": True, "payload": base64.b64encode(b"h***o").decode()})
    receipt, payloads = await ask(tmp_path, receiver)
    assert (receipt.reason, payloads) == (1, [b"h***o"])


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        ("", 200),
        ("[]", 200),
        ("null", 200),
        ("<html>", 200),
        ('{"allow": 1}', 200),
        ('{"allow": false, "reason": 1}', 200),
        ('{"allow": false, "reason": 256}', 200),
        ('{"allow": false, "reason": true}', 200),
        ('{"allow": true, "payload": ""}', 200),
        ('{"allow": true, "payload": "***"}', 200),
        ('{"allow": true, "payload": 5}', 200),
        (b'{"allow": true' + b" " * 70_000 + b"}", 200),
        ('{"allow": true}', 500),
        ('{"allow": true}', 307),
    ],
)
@pytest.mark.parametrize("fail_open", [True, False])
async def test_what_cannot_be_understood_is_no_answer(
    tmp_path: Path, receiver: TestReceiver, answer: Any, status: int, *, fail_open: bool
) -> None:
    receiver.answer = says(answer, status)
    receipt, payloads = await ask(tmp_path, receiver, pre_send_fail_open=fail_open, max_answer_bytes=65_536)
    expected = (1, [b"hello"]) if fail_open else (ReasonCode.SYSTEM_ERROR, [])
    assert (receipt.reason, payloads) == expected


@pytest.mark.parametrize("fail_open", [True, False])
async def test_a_late_answer_is_no_answer(tmp_path: Path, receiver: TestReceiver, *, fail_open: bool) -> None:
    async def never(push: Push) -> tuple[str, int]:
        await trio.sleep_forever()
        raise AssertionError

    receiver.answer = never
    settings = {"pre_send_fail_open": fail_open, "pre_send_timeout": Seconds(0.05)}
    receipt, _ = await ask(tmp_path, receiver, **settings)
    assert receipt.reason == (1 if fail_open else ReasonCode.SYSTEM_ERROR)


async def test_nobody_there_is_no_answer(tmp_path: Path, receiver: TestReceiver) -> None:
    settings = {"pre_send_url": "http://127.0.0.1:9/", "pre_send_timeout": Seconds(5), "pre_send_fail_open": False}
    receipt, _ = await ask(tmp_path, receiver, **settings)
    assert receipt.reason == ReasonCode.SYSTEM_ERROR


async def test_no_more_questions_are_under_way_than_allowed(tmp_path: Path, receiver: TestReceiver) -> None:
    under_way = most = 0

    async def answer(push: Push) -> tuple[str, int]:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await trio.sleep(0.001)
        under_way -= 1
        return '{"allow": true}', 200

    receiver.answer = answer
    settings = {"pre_send_url": receiver.url, "pre_send_timeout": Seconds(10), "pre_send_concurrency": 3}
    async with serving(tmp_path, **settings) as server, trio.open_nursery() as nursery:
        for n in range(20):
            nursery.start_soon(server.broker.messages.send, ANN, draft("bob", str(n).encode()))
    assert most == 3
    assert len(receiver.pushes) == 20


async def test_as_many_questions_are_under_way_as_allowed(tmp_path: Path, receiver: TestReceiver) -> None:
    under_way = 0
    together = trio.Event()

    async def answer(push: Push) -> tuple[str, int]:
        nonlocal under_way
        under_way += 1
        if under_way == 64:
            together.set()
        await together.wait()
        return '{"allow": true}', 200

    receiver.answer = answer
    settings = {"pre_send_url": receiver.url, "pre_send_timeout": Seconds(10), "pre_send_concurrency": 64}
    async with serving(tmp_path, **settings) as server, trio.open_nursery() as nursery:
        for n in range(64):
            nursery.start_soon(server.broker.messages.send, ANN, draft("bob", str(n).encode()))
        with trio.fail_after(5):
            await together.wait()


async def test_what_other_rules_refuse_is_not_asked_about(tmp_path: Path, receiver: TestReceiver) -> None:
    async with serving(tmp_path, pre_send_url=receiver.url) as server:
        assert (await server.broker.messages.send(ANN, draft("g", channel_type=2))).reason == 3
    assert receiver.pushes == []
