"""Submitting without a wait: the same answers as with one, or none at all."""

from pathlib import Path

import pytest
import trio

from triolet_core import ChannelInfo, ChannelKey, Device, Draft, ReasonCode, Receipt
from triolet_core.hooks import SendRequest, Verdict
from triolet_core.model import DUP, NO_PERSIST, SYSTEM_UID
from triolet_core.testing import open_test_broker

ANN = Device(uid="ann")


def drafts() -> list[Draft]:
    return [
        Draft("bob", 1, b"to a person"),
        Draft("bob", 1, b"again", flags=DUP),
        Draft("g", 2, b"to a group"),
        Draft("closed", 2, b"no member"),
        Draft("nowhere", 2, b"no such group"),
        Draft("", 1, b"no name"),
        Draft("blocks", 1, b"not wanted"),
        Draft("bob", 1, b"not kept", flags=NO_PERSIST),
        Draft("d", 7, b"not kept either"),
        Draft("bob", 1, b"broken", refusal=ReasonCode.PAYLOAD_DECODE_ERROR),
        Draft(SYSTEM_UID, 1, b"to the system"),
    ]


async def test_both_ways_give_the_same_receipts(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path) as broker:
        await broker.channels.create(ChannelKey("g", 2), ChannelInfo(), ["ann"])
        await broker.channels.create(ChannelKey("closed", 2), ChannelInfo(), ["bob"])
        await broker.channels.add_denied(ChannelKey("blocks", 1), ["ann"])
        answers: list[list[Receipt]] = []
        broker.messages.submit_nowait(ANN, drafts(), answers.append, None)
        refused = broker.messages.refused
        await broker.messages.submit(ANN, drafts(), answers.append)
        await broker.flush()
        one, other = answers
        assert [each.reason for each in one] == [each.reason for each in other]
        assert [bool(each.seq) for each in one] == [bool(each.seq) for each in other]
        assert {each.reason for each in one} > {ReasonCode.SUCCESS, ReasonCode.IN_BLACKLIST}
        assert broker.messages.refused == 2 * refused


async def test_who_has_to_be_asked_is_not_passed_over(tmp_path: Path) -> None:
    async def answer(request: SendRequest) -> Verdict:
        return Verdict(ReasonCode.NOT_ALLOW_SEND)

    async with open_test_broker(tmp_path) as broker:
        answers: list[list[Receipt]] = []
        with (
            broker.hooks.authorize_send.responder("plugin", answer, on_failure=None),
            pytest.raises(trio.WouldBlock),
        ):
            broker.messages.submit_nowait(ANN, drafts()[:1], answers.append, None)

        async def members(key: ChannelKey) -> list[str]:
            return ["ann"]

        with broker.hooks.subscribers.responder("plugin", members, on_failure=None):
            with pytest.raises(trio.WouldBlock):
                broker.messages.submit_nowait(ANN, [Draft("asked", 2, b"x")], answers.append, None)
            await broker.messages.submit(ANN, [Draft("asked", 2, b"x")], answers.append)
            broker.messages.submit_nowait(ANN, [Draft("asked", 2, b"known now")], answers.append, None)
        await broker.flush()
        assert [[each.reason for each in receipts] for receipts in answers] == [[1], [1]]
        assert broker.messages.max_seq(ChannelKey("asked", 2)) == 2
