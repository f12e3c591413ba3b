"""`triolet store check` on a store that holds everything that core keeps."""

from pathlib import Path

from triolet_core import SYNC_ONCE, Broker, ChannelInfo, ChannelKey, Device, Draft, EventDraft, ServerConfig
from triolet_core import _cli_store as cli_store
from triolet_core.config import NodeConfig
from triolet_core.model import person_channel_id
from triolet_core.store import FILE_NAME
from triolet_core.store import _keys as keys
from triolet_core.testing import open_test_broker

SERVER = Device(uid="a", is_server=True)
AB = ChannelKey(person_channel_id("a", "b"), 1)


async def use_everything(broker: Broker) -> None:
    group = ChannelKey("g", 2)
    await broker.channels.create(group, ChannelInfo(name="G"), ["a"])
    await broker.channels.add_denied(group, ["d"])
    await broker.channels.add_allowed(group, ["a"])
    await broker.users.set_token("a", 0, 1, "T")
    await broker.users.add_system_uids(["s"])
    await broker.addresses.block(["1.2.3.4"])
    await broker.bindings.bind("bot", "plugin")
    await broker.messages.send(SERVER, Draft("b", 1, b"x", flags=SYNC_ONCE))
    await broker.messages.send(SERVER, Draft("b", 1, b"x", expire=1000))
    receipt = await broker.messages.send(SERVER, Draft("b", 1, b"x", client_msg_no="n", is_stream=True))
    for kind in ("stream.snapshot", "custom"):
        await broker.streams.add(EventDraft(channel=AB, client_msg_no="n", event_id=kind, event_type=kind))
    edited = await broker.messages.send(SERVER, Draft("b", 1, b"x"))
    await broker.revisions.edit(AB, edited.message_id, b"y", by="a")
    await broker.revisions.delete(AB, [receipt.seq - 1])
    await broker.messages.send(SERVER, Draft("b", 1, b"x", expire=1000))
    await broker.queues.append("webhook.dead", [b"x"])
    await broker.conversations.set_unread("b", AB, 1)
    await broker.commits.acknowledge("webhook", receipt.message_id)
    await broker.queues.append("letters", [b"x"])


async def check(directory: Path) -> cli_store.StoreReport:
    config = ServerConfig(node=NodeConfig(data_dir=str(directory)))
    return await cli_store.look(config, cli_store.check)


async def test_every_record_of_a_store_in_use_can_be_read(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path) as broker:
        await use_everything(broker)
    report = await check(tmp_path)
    assert report.problems == ()
    tables = {name for name in vars(keys) if name.isupper() and not name.startswith(("_", "NODE", "LOG_PREFIX"))}
    assert len(report.rows) == len(tables), f"a table is empty or unknown: {sorted(report.rows)}"
    assert (tmp_path / FILE_NAME).exists()


async def test_a_record_of_any_table_that_is_damaged_is_found(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path) as broker:
        await use_everything(broker)
        env = broker._store.env  # the damage has to be done somewhere
        damaged = (
            keys.REVISION,
            keys.EXPIRY,
            keys.STREAM,
            keys.LANE,
            keys.STREAM_EVENT,
            keys.BINDING,
            keys.COMMAND_TAIL,
        )
        with env.begin(write=True) as txn, txn.cursor() as cursor:
            for key, _ in tuple(cursor):
                if key[2] in damaged and int.from_bytes(key[:2], "big") != keys.NODE:
                    txn.put(key, b"\xff")
    report = await check(tmp_path)
    assert report.problem_count >= len(damaged)
