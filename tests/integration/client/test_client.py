"""The client against a server, in memory, on a clock of the test's."""

import json
from base64 import b64encode

import httpx
import pytest
import trio

from triolet_client import ApiError, Channel, Client, Conversation, Kicked, Reason, Settings
from triolet_client.testing import ServerForTests
from triolet_core import ChannelInfo, ChannelKey
from triolet_core.model import DeviceLevel

COMMAND = 0x04
TEAM = Channel.group("team")


async def make_team(server: ServerForTests, *uids: str) -> None:
    await server.broker.channels.create(ChannelKey(*TEAM), ChannelInfo(), uids)


async def payloads(client: Client, count: int) -> list[bytes]:
    with trio.fail_after(1e6):
        return [(await client.receive()).payload for _ in range(count)]


async def test_a_message_is_acknowledged_and_arrives(triolet_server: ServerForTests, triolet_clock: object) -> None:
    async with triolet_server.open_client("ann") as ann, triolet_server.open_client("bob") as bob:
        receipt = await ann.send("bob", "hello")
        message = await bob.receive()
    assert receipt.reason == Reason.SUCCESS
    assert (message.from_uid, message.channel, message.seq, message.payload) == ("ann", Channel("ann"), 1, b"hello")
    assert message.message_id == receipt.message_id


async def test_what_was_missed_is_caught_up_with(triolet_server: ServerForTests, triolet_clock: object) -> None:
    """Without gap or duplicate, in the order of the channel; what is new comes after it."""
    server = triolet_server
    async with server.open_client("ann") as ann:
        async with server.open_client("bob", settings=Settings(page=2)) as bob:
            await ann.send("bob", "1")
            assert await payloads(bob, 1) == [b"1"]
            await server.drop_connections()
            server.is_reachable = False
            await server.advance(1)
            assert not bob.is_connected
        # bob is gone; a bob that resumes gets what he missed
        positions = bob.positions
        server.is_reachable = True
        await server.advance(60)
        await ann.wait_connected()
        for number in range(2, 8):
            await ann.send("bob", str(number))
        async with server.open_client("bob", positions=positions, settings=Settings(page=2)) as again:
            assert await payloads(again, 6) == [b"2", b"3", b"4", b"5", b"6", b"7"]
            await ann.send("bob", "8")
            message = await again.receive()
            assert (message.payload, message.is_caught_up) == (b"8", False)
            assert again.statistics.caught_up == 6


async def test_a_client_that_comes_back_misses_nothing_of_any_channel(
    triolet_server: ServerForTests, triolet_clock: object
) -> None:
    """Channels that it knew, a group that existed before, a user who never wrote before, and the system."""
    server = triolet_server
    await make_team(server, "ann", "bob")
    async with server.open_client("ann", device_id="a") as ann, server.open_client("bob") as bob:
        await ann.send(TEAM, "old")
        assert await payloads(bob, 1) == [b"old"]
        await server.drop_connections()
        for number in range(3):
            await api_send(server, "ann", TEAM, f"team {number}")
        await api_send(server, "cay", Channel.person("bob"), "first words")
        await api_send(server, "", Channel.person("bob"), "maintenance")
        await server.advance(60)
        assert sorted(await payloads(bob, 5)) == [b"first words", b"maintenance", b"team 0", b"team 1", b"team 2"]
        await ann.wait_connected()
        await ann.send(TEAM, "new")
        assert await payloads(bob, 1) == [b"new"]


async def api_send(server: ServerForTests, from_uid: str, channel: Channel, text: str) -> None:
    body = {
        "from_uid": from_uid,
        "channel_id": channel.id,
        "channel_type": channel.type,
        "payload": b64encode(text.encode()).decode(),
    }
    async with httpx.AsyncClient(base_url=server.api, timeout=None) as http:
        answer = await http.post("/message/send", json=body)
    assert answer.json()["status"] == 200


async def test_a_new_client_begins_with_what_comes(triolet_server: ServerForTests, triolet_clock: object) -> None:
    async with triolet_server.open_client("ann") as ann:
        await ann.send("bob", "before")
        async with triolet_server.open_client("bob") as bob:
            await ann.send("bob", "after")
            assert await payloads(bob, 1) == [b"after"]
        async with triolet_server.open_client("bob", positions={}) as bob:
            assert await payloads(bob, 2) == [b"before", b"after"]


async def test_own_messages_do_not_come_back(triolet_server: ServerForTests, triolet_clock: object) -> None:
    """Neither live, nor as a gap, nor when catching up; another device of the user gets them."""
    server = triolet_server
    await make_team(server, "ann", "bob")
    async with (
        server.open_client("ann", device_id="one") as ann,
        server.open_client("ann", device_id="two", device_flag=1) as other,
        server.open_client("bob") as bob,
    ):
        await ann.send(TEAM, "mine")
        await bob.send(TEAM, "yours")
        assert await payloads(ann, 1) == [b"yours"]
        assert await payloads(other, 2) == [b"mine", b"yours"]
        assert ann.statistics.gaps == 0
        await server.drop_connections()
        await server.advance(60)
        await ann.wait_connected()
        await bob.wait_connected()
        await ann.send(TEAM, "mine too")
        await bob.send(TEAM, "yours too")
        assert await payloads(ann, 1) == [b"yours too"]


async def test_a_full_inbox_is_caught_up_with(triolet_server: ServerForTests, triolet_clock: object) -> None:
    async with (
        triolet_server.open_client("ann") as ann,
        triolet_server.open_client("bob", settings=Settings(inbox=3, page=4)) as bob,
    ):
        for number in range(20):
            await ann.send("bob", str(number))
        assert await payloads(bob, 20) == [str(number).encode() for number in range(20)]
        assert bob.statistics.dropped > 0


async def test_commands_wait_until_they_were_taken(triolet_server: ServerForTests, triolet_clock: object) -> None:
    """semantics.md, section 2.8."""
    async with triolet_server.open_client("ann") as ann:
        await ann.api.send(Channel("bob"), b"do this", flags=COMMAND)
        for _ in range(2):
            async with triolet_server.open_client("bob") as bob:
                command = await bob.receive()
                assert (command.payload, command.is_command, command.channel) == (b"do this", True, Channel("ann"))
        async with triolet_server.open_client("bob") as bob:
            assert await payloads(bob, 1) == [b"do this"]
            await ann.send("bob", "thanks")
            assert await payloads(bob, 1) == [b"thanks"]  # to ask for the next message is to have taken the last
        async with triolet_server.open_client("bob") as bob:
            await ann.send("bob", "the end")
            assert await payloads(bob, 1) == [b"the end"]


async def test_a_command_that_came_live_comes_once(triolet_server: ServerForTests, triolet_clock: object) -> None:
    async with triolet_server.open_client("ann") as ann, triolet_server.open_client("bob") as bob:
        await ann.api.send(Channel("bob"), b"do this", flags=COMMAND)
        assert await payloads(bob, 1) == [b"do this"]
        await triolet_server.drop_connections()
        await triolet_server.advance(60)
        await ann.wait_connected()
        await ann.send("bob", "the end")
        assert await payloads(bob, 1) == [b"the end"]


async def test_what_is_not_stored_only_reaches_who_is_there(
    triolet_server: ServerForTests, triolet_clock: object
) -> None:
    async with triolet_server.open_client("ann") as ann, triolet_server.open_client("bob") as bob:
        receipt = await ann.send("bob", "typing", no_persist=True)
        message = await bob.receive()
        assert (receipt.seq, message.seq, message.is_stored) == (0, 0, False)


async def test_conversations_are_listed_and_marked(triolet_server: ServerForTests, triolet_clock: object) -> None:
    async with triolet_server.open_client("ann") as ann, triolet_server.open_client("bob") as bob:
        for text in ("one", "two"):
            await ann.send("bob", text)
        [found] = await bob.conversations()
        assert isinstance(found, Conversation)
        assert (found.channel, found.unread, found.last_seq) == (Channel("ann"), 2, 2)
        assert found.last is not None
        assert found.last.payload == b"two"
        await bob.api.mark_read(found.channel)
        assert [each.unread for each in await bob.conversations()] == [0]
        await bob.api.set_unread(found.channel, 1)
        assert [each.unread for each in await bob.conversations()] == [1]
        history = await bob.history(found.channel, before=2)
        assert [each.payload for each in history] == [b"one"]
        await bob.api.delete_conversation(found.channel)
        assert await bob.conversations() == []


async def test_presence_is_told(triolet_server: ServerForTests, triolet_clock: object) -> None:
    async with triolet_server.open_client("ann") as ann:
        assert await ann.api.online(["bob"]) == []
        async with triolet_server.open_client("bob", device_flag=2):
            [found] = await ann.api.online(["ann2", "bob"])
            assert (found.uid, found.device_flag) == ("bob", 2)


@pytest.mark.parametrize("triolet_settings", [["tokenAuthOn=true"]])
async def test_another_login_puts_the_client_out(triolet_server: ServerForTests, triolet_clock: object) -> None:
    users = triolet_server.broker.users
    await users.set_token("ann", 1, DeviceLevel.MASTER, "t")
    async with (
        triolet_server.open_client("ann", token="t", device_flag=1) as first,
        triolet_server.open_client("ann", token="t", device_flag=1, device_id="other"),
    ):
        with pytest.raises(Kicked):
            await first.receive()


async def test_a_refusal_of_the_api_is_raised(triolet_server: ServerForTests, triolet_clock: object) -> None:
    async with triolet_server.open_client("ann") as ann:
        with pytest.raises(ApiError, match="/message/send") as caught:
            await ann.api.send(Channel("a@b"), b"x")
        assert caught.value.status == 400


# --- streams


async def test_a_stream_is_followed_from_its_beginning(triolet_server: ServerForTests, triolet_clock: object) -> None:
    async with triolet_server.open_client("bot") as bot, triolet_server.open_client("ann") as ann:
        async with bot.open_stream("ann") as writer:
            message = await ann.receive()
            assert message.client_msg_no == writer.client_msg_no
            async with ann.follow(message.channel, message.client_msg_no) as reader:
                texts = [(await anext(reader)).text]
                for word in ("Good ", "morning"):
                    await writer.write(word)
                    texts.append((await anext(reader)).text)
                assert texts == ["", "Good ", "Good morning"]
        async with ann.follow(message.channel, message.client_msg_no) as reader:
            [last] = [state async for state in reader]
            assert (last.text, last.status, last.is_open) == ("Good morning", "closed", False)


async def test_who_joins_midway_gets_what_was_there(triolet_server: ServerForTests, triolet_clock: object) -> None:
    async with triolet_server.open_client("bot") as bot, triolet_server.open_client("ann") as ann:
        states = []
        async with bot.open_stream("ann") as writer:
            await writer.write("Good ")
            async with ann.follow("bot", writer.client_msg_no) as reader:
                states.append(await anext(reader))
                await writer.write("mor")
                states.append(await anext(reader))
                await writer.write("ning")
                await writer.finish()
                states += [state async for state in reader]
        assert states[0].text == "Good "
        assert states[-1].text == "Good morning"
        assert not states[-1].is_open


async def test_who_comes_back_gets_what_was_missed_of_a_stream(
    triolet_server: ServerForTests, triolet_clock: object
) -> None:
    server = triolet_server
    async with (
        server.open_client("bot") as bot,
        server.open_client("ann") as ann,
        bot.open_stream("ann") as writer,
        ann.follow("bot", writer.client_msg_no) as reader,
    ):
        await anext(reader)
        await writer.write("Good ")
        assert (await anext(reader)).text == "Good "
        await server.drop_connections()
        await writer.write("mor")
        await server.advance(1)  # much later the server would end the stream of a silent writer
        await ann.wait_connected()
        await writer.write("ning")
        state = await anext(reader)
        while state.text != "Good morning":
            state = await anext(reader)
        await writer.write("!")
        assert (await anext(reader)).text == "Good morning!"


async def test_a_writer_that_fails_cancels_its_stream(triolet_server: ServerForTests, triolet_clock: object) -> None:
    async with triolet_server.open_client("bot") as bot, triolet_server.open_client("ann") as ann:
        number = ""
        with pytest.raises(ZeroDivisionError):
            async with bot.open_stream("ann") as writer:
                number = writer.client_msg_no
                await writer.write("Good ")
                raise ZeroDivisionError
        async with ann.follow("bot", number) as reader:
            [state] = [state async for state in reader]
        assert (state.text, state.status) == ("Good ", "cancelled")


async def test_other_events_of_a_message_arrive(triolet_server: ServerForTests, triolet_clock: object) -> None:
    async with triolet_server.open_client("bot") as bot, triolet_server.open_client("ann") as ann:
        with ann.events() as events:
            async with bot.open_stream("ann") as writer:
                await writer.add("tool.call", {"name": "search"}, key="tools")
                event = await anext(events)
        data = json.loads(event.data)
        assert (event.type, data["event_key"], data["payload"]) == ("tool.call", "tools", {"name": "search"})
