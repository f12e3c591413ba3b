"""Looks at a store that no server holds: does it open, what is in it, does every record read.

A look opens the store as a server does, which reserves message ids and takes in what a crash left in the journal;
nothing else changes.
"""

import struct
from collections import Counter
from collections.abc import Callable, Mapping
from typing import TypeVar

import attrs
import cbor2
import lmdb
import trio

from triolet_core.config import ServerConfig
from triolet_core.errors import StoreCorrupt, StoreError
from triolet_core.store import FILE_NAME, NothingFollows, Store, open_store
from triolet_core.store import _keys as keys
from triolet_core.store import _records as records

R = TypeVar("R")
MOST_SHOWN = 20
_UNREADABLE = (ValueError, TypeError, LookupError, struct.error, cbor2.CBORDecodeError)
_SLOT_AND_TABLE = struct.Struct(">HB")


def _read_uid(value: bytes) -> object:
    return value.decode()


_TABLES: Mapping[int, tuple[str, Callable[[bytes], object]]] = {
    keys.CHANNEL: ("channels", records.decode_channel),
    keys.NAME: ("channel names", records.decode_name),
    keys.COUNTER: ("counters", bytes),
    keys.MEMBER: ("members", _read_uid),
    keys.DENIED: ("denied", _read_uid),
    keys.ALLOWED: ("allowed", _read_uid),
    keys.MESSAGE: ("messages", bytes),  # decoded with their channel, see `_check_entry`
    keys.FLOOR: ("floors", bytes),
    keys.REVISION: ("revisions", records.decode_revision),
    keys.EXPIRY: ("expiries", records.decode_place),
    keys.STREAM: ("streams", records.decode_stream),
    keys.LANE: ("lanes of streams", records.decode_lane),
    keys.STREAM_EVENT: ("events of streams", records.decode_event),
    keys.EVENT_ID: ("ids of events", bytes),
    keys.OPEN_STREAM: ("open streams", records.decode_open),
    keys.DEVICE: ("devices", records.decode_device),
    keys.SYSTEM: ("system accounts", _read_uid),
    keys.BINDING: ("plugin bindings", records.decode_binding),
    keys.ADDRESS: ("blocked addresses", _read_uid),
    keys.CONVERSATION: ("conversations", records.decode_position),
    keys.COMMAND: ("waiting commands", bytes),
    keys.COMMAND_TAIL: ("command queues", records.decode_command_tail),
    keys.QUEUE: ("queued", bytes),
    keys.QUEUE_STATE: ("queues", records.decode_queue_state),
}
_TABLES_OF_NODE: Mapping[int, tuple[str, Callable[[bytes], object]]] = {
    keys.META: ("facts", bytes),
    keys.LOG: ("commit log", records.decode_log),
    keys.CURSOR: ("cursors", bytes),
}


@attrs.frozen
class StoreReport:
    """What a look at every record found."""

    rows: Mapping[str, int]
    """Records by table."""
    problems: tuple[str, ...]
    """The first records that cannot be read, by their place; never what they hold."""
    problem_count: int


async def look(config: ServerConfig, question: Callable[[lmdb.Environment], R]) -> R:
    """Open the store, ask, close it.

    Raises:
        StoreLocked: A server holds it.
        StoreCorrupt: It is damaged, foreign, or of a newer format.
        StoreError: There is none, or it cannot be used.
    """
    directory = config.node.data_path
    if not (directory / FILE_NAME).exists():
        raise StoreError(f"there is no store in {directory}; it is made when a server starts")

    outcome: R | lmdb.Error
    async with open_store(
        directory, config.store, config.message, node=config.node.id, after_commit=NothingFollows()
    ) as store:
        outcome = await _ask(store, question)
    if isinstance(outcome, lmdb.Error):
        raise StoreCorrupt(f"{directory / FILE_NAME} is damaged: {outcome}") from outcome
    return outcome


async def _ask(store: Store, question: Callable[[lmdb.Environment], R]) -> R | lmdb.Error:
    """Answer in a thread; an error of LMDB is a value, so that the store closes in order and no group is made."""
    try:
        return await trio.to_thread.run_sync(question, store.env, limiter=trio.CapacityLimiter(1))
    except lmdb.Error as exc:
        return exc


def opens(env: lmdb.Environment) -> bool:
    """Ask nothing: whether it opens is the question."""
    return bool(env.path())


def figures(env: lmdb.Environment) -> dict[str, int]:
    """Return sizes (bytes), pages and the number of records."""
    state, info = env.stat(), env.info()
    pages = info["last_pgno"] + 1
    return {
        "entries": state["entries"],
        "bytes used": pages * state["psize"],
        "bytes at most (store.mapSize)": info["map_size"],
        "page size": state["psize"],
        "depth": state["depth"],
        "leaf pages": state["leaf_pages"],
        "overflow pages": state["overflow_pages"],
        "last transaction": info["last_txnid"],
    }


def check(env: lmdb.Environment) -> StoreReport:
    """Read every record and decode it."""
    rows: Counter[str] = Counter()
    problems: list[str] = []
    count = 0
    with env.begin() as txn, txn.cursor() as cursor:
        for key, value in cursor:
            try:
                rows[_check_entry(txn, key, value)] += 1
            except _UNREADABLE as exc:
                count += 1
                if count <= MOST_SHOWN:
                    problems.append(f"{_place(key)}: {type(exc).__name__}")
    return StoreReport(dict(sorted(rows.items())), tuple(problems), count)


def _check_entry(txn: lmdb.Transaction, key: bytes, value: bytes) -> str:
    """Decode one record and return the name of its table."""
    slot, table = _SLOT_AND_TABLE.unpack_from(key)
    name, decode = (_TABLES_OF_NODE if slot == keys.NODE else _TABLES)[table]
    decode(value)
    if slot != keys.NODE and table == keys.MESSAGE:
        number = int.from_bytes(key[3:7], "big")
        channel = records.decode_name(txn.get(keys.numbered(slot, keys.NAME, number)))
        records.decode_message(value, channel, keys.seq_of(key))
    return name


def _place(key: bytes) -> str:
    if len(key) < _SLOT_AND_TABLE.size:
        return "a key that is too short"
    slot, table = _SLOT_AND_TABLE.unpack_from(key)
    name, _ = (_TABLES_OF_NODE if slot == keys.NODE else _TABLES).get(table, (f"table {table}", bytes))
    rest = key[3:15].hex() if name in ("messages", "commit log") else f"{len(key)} bytes of key"
    return f"{name}, slot {slot}, {rest}"
