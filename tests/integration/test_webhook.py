"""The webhook over HTTP: what a receiver sees. Source: semantics.md, sections 4.3 and 5; seeds 000 and 002."""

import base64
import gzip
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from tests.webhook_receiver import Push, TestReceiver, open_receiver
from triolet_core import ChannelInfo, ChannelKey, Device, Draft, Server, ServerConfig, open_server
from triolet_core.compat import Profile
from triolet_core.config import AuthConfig, ChannelConfig, CompatConfig, NodeConfig, Seconds
from triolet_core.model import NO_PERSIST, RED_DOT, SYNC_ONCE
from triolet_core.testing import MemorySession, draft
from triolet_webhook import WebhookConfig, plugin

ANN, BOB, CID = (Device(uid=uid, device_id=f"{uid}1") for uid in ("ann", "bob", "cid"))
GROUP = ChannelKey("g", 2)
QUICK = {"msg_notify_event_push_interval": Seconds(0.02), "retry_first": Seconds(0.02)}


@asynccontextmanager
async def serving(path: Path, *, core: dict[str, Any] | None = None, **webhook: Any) -> AsyncIterator[Server]:
    """A server with only the webhook."""
    config = ServerConfig(
        node=NodeConfig(data_dir=str(path), id=7),
        sections={"webhook": WebhookConfig(**{**QUICK, **webhook})},
        **(core or {}),
    )
    async with open_server(config, plugins=[plugin]) as server:
        yield server


@pytest.fixture
async def receiver() -> AsyncIterator[TestReceiver]:
    async with open_receiver() as opened:
        yield opened


def online(server: Server, device: Device) -> MemorySession:
    session = MemorySession(device)
    server.broker.presence.register(session)
    return session


# --- msg.notify


async def test_a_message_is_notified_with_every_field_and_its_payload_in_base64(
    tmp_path: Path, receiver: TestReceiver
) -> None:
    """Conformance 68, 76."""
    async with serving(tmp_path, http_addr=receiver.url) as server:
        sent = Draft("bob", 1, b"hi there", "no1", flags=RED_DOT, setting=8, expire=60, topic="t")
        receipt = await server.broker.messages.send(ANN, sent)
        [push] = await receiver.wait_for("msg.notify")
    assert push.headers["content-type"] == "application/json"
    [message] = push.json
    stored = message.pop("timestamp")
    assert stored > 1_700_000_000
    assert message == {
        "header": {"no_persist": 0, "red_dot": 1, "sync_once": 0},
        "setting": 8,
        "message_id": receipt.message_id,
        "message_idstr": str(receipt.message_id),
        "client_msg_no": "no1",
        "message_seq": 1,
        "from_uid": "ann",
        "channel_id": "bob",
        "channel_type": 1,
        "topic": "t",
        "expire": 60,
        "payload": base64.b64encode(b"hi there").decode(),
    }


async def test_commands_are_notified_with_the_plain_channel_and_the_system_account_by_name(
    tmp_path: Path, receiver: TestReceiver
) -> None:
    """Source: semantics.md, 5.2 and 5.5."""
    system = Device(uid="____system", is_server=True)
    async with serving(tmp_path, http_addr=receiver.url) as server:
        await server.broker.messages.send(system, Draft("bob", 1, b"x", flags=SYNC_ONCE))
        [push] = await receiver.wait_for("msg.notify")
    [message] = push.json
    assert (message["from_uid"], message["channel_id"], message["channel_type"]) == ("____system", "bob", 1)
    assert message["header"]["sync_once"] == 1


async def test_what_is_not_stored_is_not_told(tmp_path: Path, receiver: TestReceiver) -> None:
    """Conformance 41."""
    async with serving(tmp_path, http_addr=receiver.url) as server:
        await server.broker.messages.send(ANN, Draft("bob", 1, b"gone", flags=NO_PERSIST))
        await server.broker.messages.send(ANN, draft("bob", b"kept"))
        await receiver.wait_for("msg.notify")
        await receiver.wait_for("msg.offline")
    assert [payloads(push) for push in receiver.pushes if push.event == "msg.notify"] == [[b"kept"]]
    assert [base64.b64decode(push.json["payload"]) for push in receiver.pushes if push.event == "msg.offline"] == [
        b"kept"
    ]


def payloads(push: Push) -> list[bytes]:
    return [base64.b64decode(message["payload"]) for message in push.json]


async def test_no_push_has_more_messages_than_the_limit_and_order_is_kept(
    tmp_path: Path, receiver: TestReceiver
) -> None:
    """Conformance 69."""
    async with serving(tmp_path, http_addr=receiver.url, focus_events=("msg.notify",)) as server:
        await server.broker.messages.send_many(ANN, [draft("bob", str(n).encode()) for n in range(250)])
        await receiver.wait_for("msg.notify", 3)
    sizes = [len(push.json) for push in receiver.pushes]
    assert max(sizes) <= 100
    assert [int(payload) for push in receiver.pushes for payload in payloads(push)] == list(range(250))


async def test_a_push_has_no_more_payload_bytes_than_the_limit(tmp_path: Path, receiver: TestReceiver) -> None:
    async with serving(tmp_path, http_addr=receiver.url, focus_events=("msg.notify",), max_push_bytes=2000) as server:
        await server.broker.messages.send_many(ANN, [draft("bob", bytes(size)) for size in (900, 900, 900, 5000, 10)])
        await receiver.wait_for("msg.notify", 4)
    assert [[len(payload) for payload in payloads(push)] for push in receiver.pushes] == [
        [900, 900],
        [900],
        [5000],
        [10],
    ]


async def test_a_failed_push_is_repeated_with_the_same_id_and_the_next_attempt_number(
    tmp_path: Path, receiver: TestReceiver
) -> None:
    statuses = iter([500, 302, 404, 204])

    async def answer(push: Push) -> tuple[str, int]:
        return "<html>garbage", next(statuses, 200)

    receiver.answer = answer
    async with serving(tmp_path, http_addr=receiver.url, focus_events=("msg.notify",)) as server:
        await server.broker.messages.send(ANN, draft("bob", b"1"))
        pushes = await receiver.wait_for("msg.notify", 4)
        await server.broker.messages.send(ANN, draft("bob", b"2"))
        last = (await receiver.wait_for("msg.notify", 5))[-1]
    assert [push.headers["x-triolet-attempt"] for push in pushes] == ["1", "2", "3", "4"]
    assert len({push.headers["x-triolet-event-id"] for push in pushes}) == 1
    assert len({push.body for push in pushes}) == 1
    assert (payloads(last), last.headers["x-triolet-attempt"]) == ([b"2"], "1")
    assert last.headers["x-triolet-event-id"] != pushes[0].headers["x-triolet-event-id"]


@pytest.mark.parametrize("breaks_off", [True, False])
async def test_a_good_status_takes_a_push_whatever_becomes_of_the_body(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, breaks_off: bool
) -> None:
    monkeypatch.setattr("triolet_webhook._http.UNNEEDED_BODY_S", 0.02)
    send, receive = trio.open_memory_channel[bytes](10)

    async def answer(stream: trio.SocketStream) -> None:
        request = b""
        while not request.endswith(b"]"):
            request += await stream.receive_some(65536)
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 200\r\n\r\nhalf")
        send.send_nowait(request.lower())
        if not breaks_off:
            await stream.receive_some(1)

    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}/"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, answer, [listener])
        async with serving(tmp_path, http_addr=url, focus_events=("msg.notify",)) as server:
            for payload in (b"1", b"2"):
                await server.broker.messages.send(ANN, draft("bob", payload))
                request = await receive.receive()
                assert b"x-triolet-attempt: 1" in request
                assert base64.b64encode(payload).lower() in request
        nursery.cancel_scope.cancel()


async def test_after_the_last_attempt_it_is_a_dead_letter_that_can_be_sent_again(
    tmp_path: Path, receiver: TestReceiver
) -> None:
    """Conformance 70, without the loss."""

    async def refuse(push: Push) -> tuple[str, int]:
        return "", 500 if base64.b64encode(b"poison") in push.body else 200

    receiver.answer = refuse
    async with serving(
        tmp_path, http_addr=receiver.url, focus_events=("msg.notify",), msg_notify_event_retry_max_count=3
    ) as server:
        service = server.broker.services["webhook"]
        poison = await server.broker.messages.send(ANN, draft("bob", b"poison"))
        await receiver.wait_for("msg.notify", 3)
        await server.broker.messages.send(ANN, draft("bob", b"good"))
        assert payloads((await receiver.wait_for("msg.notify", 4))[-1]) == [b"good"]
        [letter] = await service.dead()
        assert letter["event"] == "msg.notify"
        assert (letter["attempts"], letter["reason"]) == (3, "status 500")
        assert letter["first_message_id"] == letter["last_message_id"] == poison.message_id
        answer = await service.resend([letter["id"]])
        assert answer == {"resent": [], "failed": letter["id"], "reason": "status 500"}
    async with serving(tmp_path, http_addr=receiver.url, focus_events=("msg.notify",)) as server:
        service = server.broker.services["webhook"]
        [letter] = await service.dead()
        del receiver.answer
        receiver.answer = accept_all
        assert await service.resend([letter["id"], 99]) == {"resent": [letter["id"]]}
        assert payloads(receiver.pushes[-1]) == [b"poison"]
        assert receiver.pushes[-1].headers["x-triolet-event-id"] == letter["event_id"]
        assert await service.dead() == []
        assert server.broker.metrics.values()["webhook_dead_count"] == 0


async def accept_all(push: Push) -> tuple[str, int]:
    return "", 200


async def test_dead_letters_can_be_dropped(tmp_path: Path, receiver: TestReceiver) -> None:
    async def refuse(push: Push) -> tuple[str, int]:
        return "", 500

    receiver.answer = refuse
    async with serving(tmp_path, http_addr=receiver.url, msg_notify_event_retry_max_count=1) as server:
        service = server.broker.services["webhook"]
        await server.broker.messages.send(ANN, draft("bob"))
        online(server, ANN)
        for event in ("msg.notify", "msg.offline", "user.onlinestatus"):
            await receiver.wait_for(event)
        while len(letters := await service.dead()) < 3:
            await trio.lowlevel.checkpoint()
        assert sorted(letter["event"] for letter in letters) == ["msg.notify", "msg.offline", "user.onlinestatus"]
        ids = [letter["id"] for letter in letters]
        assert await service.drop([*ids, 77]) == {"dropped": ids}
        assert await service.dead() == []


async def test_messages_from_before_the_first_start_are_nobodys_event(tmp_path: Path, receiver: TestReceiver) -> None:
    async with open_server(ServerConfig(node=NodeConfig(data_dir=str(tmp_path))), plugins=[]) as server:
        await server.broker.messages.send(ANN, draft("bob", b"old"))
    async with serving(tmp_path, http_addr=receiver.url) as server:
        await server.broker.messages.send(ANN, draft("bob", b"new"))
        [push] = await receiver.wait_for("msg.notify")
        assert payloads(push) == [b"new"]


async def test_what_was_not_pushed_before_a_stop_is_pushed_after_the_next_start(
    tmp_path: Path, receiver: TestReceiver
) -> None:
    async def refuse(push: Push) -> tuple[str, int]:
        return "", 503

    receiver.answer = refuse
    async with serving(tmp_path, http_addr=receiver.url) as server:
        receipt = await server.broker.messages.send(ANN, draft("bob"))
        await receiver.wait_for("msg.notify")
    first = [push.headers["x-triolet-event-id"] for push in receiver.pushes if push.event == "msg.notify"]
    receiver.pushes.clear()
    receiver.answer = accept_all
    async with serving(tmp_path, http_addr=receiver.url) as server:
        await server.broker.messages.send(ANN, draft("bob"))
        [again, *_] = await receiver.wait_for("msg.notify")
    assert [message["message_id"] for message in again.json] == [receipt.message_id]
    assert {again.headers["x-triolet-event-id"]} == set(first)


# --- msg.offline


async def test_the_recipients_that_are_not_online_are_told_as_one_object_per_message(
    tmp_path: Path, receiver: TestReceiver
) -> None:
    """Conformance 72; `to_uids` holds neither the sender nor anybody online."""
    async with serving(tmp_path, http_addr=receiver.url, focus_events=("msg.offline",)) as server:
        await server.broker.channels.create(GROUP, ChannelInfo(), ["ann", "bob", "cid", "dan", "____system"])
        online(server, BOB)
        receipt = await server.broker.messages.send(ANN, draft("g", channel_type=2))
        [push] = await receiver.wait_for("msg.offline")
    assert push.json["to_uids"] == ["cid", "dan"]
    assert (push.json["message_id"], push.json["source_id"]) == (receipt.message_id, 7)
    assert "compress" not in push.json


async def test_with_token_authentication_only_masters_are_online(tmp_path: Path, receiver: TestReceiver) -> None:
    """Source: semantics.md, 5.4 point 1."""
    core = {"auth": AuthConfig(token_auth_on=True)}
    async with serving(tmp_path, core=core, http_addr=receiver.url, focus_events=("msg.offline",)) as server:
        await server.broker.channels.create(GROUP, ChannelInfo(), ["ann", "bob", "cid"])
        online(server, attrs.evolve(BOB, level=1))
        online(server, CID)
        await server.broker.messages.send(ANN, draft("g", channel_type=2))
        [push] = await receiver.wait_for("msg.offline")
    assert push.json["to_uids"] == ["cid"]


async def test_nobody_is_called_for_who_is_online_or_wrote_to_himself(tmp_path: Path, receiver: TestReceiver) -> None:
    """Source: semantics.md, 5.4 point 6."""
    async with serving(tmp_path, http_addr=receiver.url, focus_events=("msg.offline",)) as server:
        online(server, BOB)
        await server.broker.messages.send(ANN, draft("bob", b"read"))
        await server.broker.messages.send(ANN, draft("ann", b"note to self"))
        await server.broker.messages.send(BOB, draft("ann", b"missed"))
        [push] = await receiver.wait_for("msg.offline")
    assert base64.b64decode(push.json["payload"]) == b"missed"
    assert push.json["to_uids"] == ["ann"]
    assert len(receiver.pushes) == 1


async def test_a_message_to_listed_users_is_told_for_those(tmp_path: Path, receiver: TestReceiver) -> None:
    """POST /message/send with `subscribers` (semantics.md, section 2.7)."""
    server_device = Device(uid="____system", is_server=True)
    async with serving(tmp_path, http_addr=receiver.url, focus_events=("msg.offline",)) as server:
        online(server, BOB)
        await server.broker.messages.send(server_device, Draft("0f@tmp", 8, b"x", to_uids=("bob", "cid")))
        [push] = await receiver.wait_for("msg.offline")
    assert push.json["to_uids"] == ["cid"]


async def test_many_recipients_are_gzipped(tmp_path: Path, receiver: TestReceiver) -> None:
    """Conformance 74."""
    core = {"channel": ChannelConfig(subscriber_compress_of_count=2)}
    async with serving(tmp_path, core=core, http_addr=receiver.url, focus_events=("msg.offline",)) as server:
        await server.broker.channels.create(GROUP, ChannelInfo(), ["ann", "bob", "cid", "dan"])
        await server.broker.messages.send(ANN, draft("g", channel_type=2))
        [push] = await receiver.wait_for("msg.offline")
    assert (push.json["compress"], push.json["to_uids"]) == ("gzip", [])
    packed = base64.b64decode(push.json["compress_to_uids"])
    assert json.loads(gzip.decompress(packed)) == ["bob", "cid", "dan"]


async def test_the_form_array_is_a_list_of_messages(tmp_path: Path, receiver: TestReceiver) -> None:
    """Seeds 000 and 002 say "array of messages"."""
    async with serving(tmp_path, http_addr=receiver.url, focus_events=("msg.offline",), offline_form="array") as server:
        await server.broker.messages.send_many(ANN, [draft(uid, uid.encode()) for uid in ("bob", "cid")])
        [push] = await receiver.wait_for("msg.offline")
    assert [(base64.b64decode(each["payload"]), each["to_uids"]) for each in push.json] == [
        (b"bob", ["bob"]),
        (b"cid", ["cid"]),
    ]


async def test_calls_for_one_channel_come_one_after_the_other(tmp_path: Path, receiver: TestReceiver) -> None:
    busy: set[str] = set()
    overlaps = []

    async def answer(push: Push) -> tuple[str, int]:
        to = push.json["to_uids"][0]
        overlaps.append(to in busy)
        busy.add(to)
        await trio.sleep(0.001)
        busy.discard(to)
        return "", 200

    receiver.answer = answer
    async with serving(tmp_path, http_addr=receiver.url, focus_events=("msg.offline",)) as server:
        drafts = [draft(f"u{n % 3}", str(n).encode()) for n in range(60)]
        await server.broker.messages.send_many(ANN, drafts)
        pushes = await receiver.wait_for("msg.offline", 60)
    assert not any(overlaps)
    for uid in ("u0", "u1", "u2"):
        numbers = [int(base64.b64decode(p.json["payload"])) for p in pushes if p.json["to_uids"] == [uid]]
        assert numbers == sorted(numbers)


# --- user.onlinestatus


async def test_each_connection_is_told_with_the_counts_after_the_change(tmp_path: Path, receiver: TestReceiver) -> None:
    """Conformance 13, 14."""
    async with serving(tmp_path, http_addr=receiver.url) as server:
        web, web2 = (online(server, attrs.evolve(ANN, flag=1, device_id=name)) for name in "ab")
        app = online(server, ANN)
        server.broker.presence.unregister(web)
        strings: list[str] = []
        while len(strings) < 4:
            pushes = await receiver.wait_for("user.onlinestatus", 1 if not strings else len(receiver.pushes) + 1)
            strings = [string for push in pushes for string in push.json]
    assert strings[:4] == [
        f"ann-1-1-{web.connection_id}-1-1",
        f"ann-1-1-{web2.connection_id}-2-2",
        f"ann-0-1-{app.connection_id}-1-3",
        f"ann-1-0-{web.connection_id}-1-2",
    ]


async def statuses(receiver: TestReceiver, count: int) -> list[str]:
    """Wait for that many rows, in however many pushes."""
    pushes = 0
    while True:
        found = [string for push in receiver.pushes if push.event == "user.onlinestatus" for string in push.json]
        if len(found) >= count:
            return found
        pushes += 1
        await receiver.wait_for("user.onlinestatus", pushes)


@pytest.mark.parametrize("by_profile", [True, False])
async def test_limaoims_form_says_offline_only_for_the_last_of_a_flag(
    tmp_path: Path, receiver: TestReceiver, *, by_profile: bool
) -> None:
    """Conformance 15, 16."""
    core = {"compat": CompatConfig(profile=Profile.LIMAOIM.value)} if by_profile else {}
    form = {} if by_profile else {"online_status_format": "three"}
    async with serving(tmp_path, core=core, http_addr=receiver.url, **form) as server:
        presence = server.broker.presence
        first, second = MemorySession(ANN), MemorySession(attrs.evolve(ANN, flag=1))
        for session in (first, second):
            presence.register(session)
        presence.unregister(second)
        presence.unregister(first)
        assert await statuses(receiver, 4) == ["ann-0-1", "ann-1-1", "ann-1-0", "ann-0-0"]


async def test_a_clean_stop_says_offline_for_who_is_online(tmp_path: Path, receiver: TestReceiver) -> None:
    """Source: semantics.md, 4.3. The gateway ends sessions before the webhook is asked to stop; here the test does."""
    async with serving(tmp_path, http_addr=receiver.url) as server:
        session = online(server, ANN)
        server.broker.presence.unregister(session)
    number = session.connection_id
    assert await statuses(receiver, 2) == [f"ann-0-1-{number}-1-1", f"ann-0-0-{number}-0-0"]


async def test_after_a_crash_the_receiver_learns_that_sessions_ended(tmp_path: Path, receiver: TestReceiver) -> None:
    """The sessions are still registered when the server is torn down, as after kill -9."""
    async with serving(tmp_path, http_addr=receiver.url) as server:
        ids = [
            online(server, attrs.evolve(ANN, flag=flag, device_id=f"d{n}")).connection_id
            for n, flag in enumerate((1, 1, 0))
        ]
        await statuses(receiver, 3)
    receiver.pushes.clear()
    async with serving(tmp_path, http_addr=receiver.url):
        assert await statuses(receiver, 3) == [
            f"ann-1-0-{ids[0]}-1-2",
            f"ann-1-0-{ids[1]}-0-1",
            f"ann-0-0-{ids[2]}-0-0",
        ]
    receiver.pushes.clear()
    async with serving(tmp_path, http_addr=receiver.url) as server:
        online(server, BOB)
        assert [row[:8] for row in await statuses(receiver, 1)] == ["bob-0-1-"]


async def test_a_logout_is_an_event_of_its_own_for_who_asks(tmp_path: Path, receiver: TestReceiver) -> None:
    """Source: semantics.md, 10.1: off by default."""
    async with serving(tmp_path, http_addr=receiver.url, focus_events=("user.logout",)) as server:
        left, lost = online(server, ANN), online(server, BOB)
        server.broker.presence.unregister(lost)
        server.broker.presence.unregister(left, logout=True)
        [push] = await receiver.wait_for("user.logout")
    assert push.json == [f"ann-0-0-{left.connection_id}-0-0"]
    assert len(receiver.pushes) == 1


# --- transport


async def test_only_the_events_in_focus_are_pushed(tmp_path: Path, receiver: TestReceiver) -> None:
    """Conformance 73."""
    async with serving(tmp_path, http_addr=receiver.url, focus_events=("msg.offline",)) as server:
        online(server, ANN)
        await server.broker.messages.send(ANN, draft("bob"))
        await receiver.wait_for("msg.offline")
    assert [push.event for push in receiver.pushes] == ["msg.offline"]


async def test_an_address_with_a_query_keeps_it(tmp_path: Path, receiver: TestReceiver) -> None:
    async with serving(tmp_path, http_addr=receiver.url + "?key=a%2Fb&event2=x#part") as server:
        await server.broker.messages.send(ANN, draft("bob"))
        [push] = await receiver.wait_for("msg.notify")
    assert push.query == {"key": "a/b", "event2": "x", "event": "msg.notify"}


async def test_a_secret_signs_the_timestamp_and_the_body(tmp_path: Path, receiver: TestReceiver) -> None:
    async with serving(tmp_path, http_addr=receiver.url, secret="s3cret") as server:
        await server.broker.messages.send(ANN, draft("bob"))
        [push] = await receiver.wait_for("msg.notify")
    signed = push.headers["x-triolet-timestamp"].encode() + b"." + push.body
    assert push.headers["x-triolet-signature"] == "sha256=" + hmac.new(b"s3cret", signed, hashlib.sha256).hexdigest()


async def test_without_a_secret_nothing_is_signed(tmp_path: Path, receiver: TestReceiver) -> None:
    async with serving(tmp_path, http_addr=receiver.url) as server:
        await server.broker.messages.send(ANN, draft("bob"))
        [push] = await receiver.wait_for("msg.notify")
    assert not {"x-triolet-signature", "x-triolet-timestamp"} & push.headers.keys()


@pytest.mark.parametrize("settings", [{}, {"http_addr": "http://127.0.0.1:9/", "focus_events": ("msg.stream",)}])
async def test_the_webhook_is_idle_without_an_address_or_an_event(tmp_path: Path, settings: dict[str, Any]) -> None:
    async with serving(tmp_path, **settings) as server:
        assert not server.broker.hooks.authorize_send.is_answered
        assert not server.broker.hooks.presence_changed.has_subscribers
        assert ("webhook" in server.broker.services) == bool(settings)
        assert (await server.broker.messages.send(ANN, draft("bob"))).reason == 1
