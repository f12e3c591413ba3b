"""The client against a server, in memory, on a clock of the test's."""

from triolet_client import Channel, Reason
from triolet_client.testing import ServerForTests


async def test_a_message_is_acknowledged_and_arrives(triolet_server: ServerForTests, triolet_clock: object) -> None:
    async with triolet_server.open_client("ann") as ann, triolet_server.open_client("bob") as bob:
        receipt = await ann.send("bob", "hello")
        message = await bob.receive()
    assert receipt.reason == Reason.SUCCESS
    assert (message.from_uid, message.channel, message.seq, message.payload) == ("ann", Channel("ann"), 1, b"hello")
    assert message.message_id == receipt.message_id


async def test_what_was_missed_is_caught_up_with(triolet_server: ServerForTests, triolet_clock: object) -> None:
    async with triolet_server.open_client("ann") as ann, triolet_server.open_client("bob") as bob:
        await ann.send("bob", "1")
        assert (await bob.receive()).payload == b"1"
        await triolet_server.drop_connections()
        await triolet_server.advance(1)
        await ann.wait_connected()
        for number in range(2, 5):
            await ann.send("bob", str(number))
        await triolet_server.advance(60)
        payloads = [(await bob.receive()).payload for _ in range(3)]
    assert payloads == [b"2", b"3", b"4"]
    assert bob.statistics.connects == 2
