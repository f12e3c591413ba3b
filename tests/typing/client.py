"""A program written against the client's public types only. Checked by mypy, never run."""

from typing import assert_type

from triolet_client import (
    Backoff,
    Channel,
    Client,
    Conversation,
    Event,
    Login,
    Message,
    Receipt,
    Settings,
    StreamState,
    open_client,
    text_of,
)

SETTINGS = Settings(inbox=10, backoff=Backoff(first_s=1))


async def run(saved: dict[Channel, int]) -> None:
    """Use everything once."""
    login = Login(uid="ann", token="t")
    async with open_client(login, "ws://127.0.0.1:5200", api="http://x", settings=SETTINGS, positions=saved) as client:
        assert_type(client, Client)
        assert_type(await client.send("bob", b"x", expire=5), Receipt)
        assert_type(await client.send(Channel.group("g"), "x"), Receipt)
        assert_type(await client.receive(), Message)
        async for message in client.messages():
            assert_type(message, Message)
            assert_type(text_of(message.payload), str)
            assert_type(message.channel, Channel)
        assert_type(await client.conversations(), list[Conversation])
        assert_type(await client.history(Channel("bob")), tuple[Message, ...])
        assert_type(client.positions, dict[Channel, int])
        with client.events() as events:
            async for event in events:
                assert_type(event, Event)
        async with client.open_stream("bob") as writer:
            await writer.write("x")
        async with client.follow("bob", "number") as reader:
            async for state in reader:
                assert_type(state, StreamState)
