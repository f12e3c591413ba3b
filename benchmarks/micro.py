"""The functions that run per message, pure against compiled: python -m benchmarks.micro [--only CASE ...].

Each case is one call of the hot path; both implementations take turns, so that noise hits both. Prints the best of
the turns, divided by what the call handles, in nanoseconds.
"""

import argparse
import importlib
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

from triolet_api._answers import encode, message_object
from triolet_core.model import ChannelKey, Message, Receipt
from triolet_core.store import _keys as keys
from triolet_core.store import _records as records
from triolet_protocol import Connection, Role, _hot, recv_fields

TURNS = 7
MAX_FRAME = 1 << 20
KEY, IV = b"0123456789abcdef", b"fedcba9876543210"
Case = Callable[[ModuleType], tuple[int, Callable[[], object]]]


def peers(hot: ModuleType, count: int) -> list[Any]:
    return [hot.Peer(5, limao=False, key=n.to_bytes(16, "big"), iv=IV) for n in range(1, count + 1)]


def sends(count: int, size: int) -> bytes:
    client = Connection(Role.CLIENT)
    client._peer = _hot.Peer(5, limao=False, key=KEY, iv=IV)
    return b"".join(
        client.send_message(
            client_seq=n, client_msg_no=f"{n:032x}", channel_id="somebody", channel_type=1, payload=b"x" * size
        )
        for n in range(count)
    )


def read(count: int, size: int = 64) -> Case:
    buffer = sends(count, size)

    def case(hot: ModuleType) -> tuple[int, Callable[[], object]]:
        peer = hot.Peer(5, limao=False, key=KEY, iv=IV)
        return count, lambda: hot.read_batch(peer, buffer, 0, MAX_FRAME)

    return case


def read_recvacks(count: int) -> Case:
    buffer = (b"\x62\x0c" + bytes(range(12))) * count

    def case(hot: ModuleType) -> tuple[int, Callable[[], object]]:
        [peer] = peers(hot, 1)
        return count, lambda: hot.read_batch(peer, buffer, 0, MAX_FRAME)

    return case


def write(messages: int, receivers: int, size: int = 64) -> Case:
    message = Message(2**60, 7, ChannelKey("a group", 2), "sender", "f" * 32, 1_700_000_000, 2, 0, 0, "", b"x" * size)
    recvs = [recv_fields(message, "a group", "sender", 2)] * messages

    def case(hot: ModuleType) -> tuple[int, Callable[[], object]]:
        those = peers(hot, receivers)
        return messages * receivers, lambda: hot.write_recvs(recvs, those)

    return case


def match(count: int) -> Case:
    """RECVACKs that confirm what was delivered, in order."""
    ids = b"".join(number.to_bytes(8, "big") for number in range(count))
    buffer = b"".join(b"\x62\x0c" + ids[at : at + 8] + bytes(4) for at in range(0, len(ids), 8))

    def case(hot: ModuleType) -> tuple[int, Callable[[], object]]:
        return count, lambda: hot.match_recvacks(buffer, 0, ids, 0)

    return case


def acks(count: int) -> Case:
    marks = [(n, 2) for n in range(count)]
    receipts = [Receipt(1, 2**60 + n, n) for n in range(count)]

    def case(hot: ModuleType) -> tuple[int, Callable[[], object]]:
        return count, lambda: hot.write_sendacks(marks, receipts, limao=False)

    return case


def page(count: int) -> Case:
    """A page of history from what the store returns; per message."""
    channel = ChannelKey("somebody@sender", 1)
    message = Message(2**60, 7, channel, "sender", "f" * 32, 1_700_000_000, 2, 0, 0, "", b"x" * 64)
    rows = [(keys.message(5, 77, seq), records.encode_message(message)) for seq in range(1, count + 1)]
    prefix = keys.numbered(5, keys.MESSAGE, 77)

    def in_python() -> object:
        found = [records.decode_message(value, channel, keys.seq_of(key)) for key, value in rows]
        return encode([message_object(each) for each in found])

    def case(hot: ModuleType) -> tuple[int, Callable[[], object]]:
        if hot is _hot:
            return count, in_python
        return count, lambda: hot.page_text(rows, prefix, channel.id, channel.type, between=(0, 2**63), limit=count)

    return case


CASES = {
    "read 1 SEND": read(1),
    "read 32 SENDs": read(32),
    "read 32 SENDs of 1 KiB": read(32, 1024),
    "read 1 RECVACK": read_recvacks(1),
    "read 64 RECVACKs": read_recvacks(64),
    "match 1 RECVACK": match(1),
    "match 64 RECVACKs": match(64),
    "write 1 RECV": write(1, 1),
    "write 32 RECVs for 1": write(32, 1),
    "write 1 RECV for 1000": write(1, 1000),
    "write 8 RECVs for 1000": write(8, 1000),
    "write 1 RECV of 1 KiB for 1000": write(1, 1000, 1024),
    "write 1 SENDACK": acks(1),
    "write 32 SENDACKs": acks(32),
    "page of 100 from the store": page(100),
}


def best(call: Callable[[], object], seconds: float) -> float:
    """Return the seconds of one call, averaged over as many as fit."""
    count = 0
    start = now = time.perf_counter()
    while now - start < seconds:
        call()
        count += 1
        now = time.perf_counter()
    return (now - start) / count


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.micro")
    parser.add_argument("--seconds", type=float, default=0.1, help="length of a turn")
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES))
    args = parser.parse_args()
    try:
        compiled = importlib.import_module("triolet_speedups")
    except ImportError:
        compiled = None
    modules = [_hot] if compiled is None else [_hot, compiled]
    print(f"{'ns per message':32} {'pure':>9} {'compiled':>9} {'ratio':>6}")
    for name in args.only:
        calls = [CASES[name](module) for module in modules]
        turns = [[best(call, args.seconds) / count for count, call in calls] for _ in range(TURNS)]
        found = [min(each) * 1e9 for each in zip(*turns, strict=True)]
        compared = f"{found[1]:9.0f} {found[0] / found[1]:6.1f}" if compiled else "        -      -"
        print(f"{name:32} {found[0]:9.0f} {compared}", flush=True)


if __name__ == "__main__":
    main()
