"""The load generator: one row, in a process of its own, over real loopback sockets. Prints one JSON line.

It signs and encrypts every SEND and acknowledges every RECV, but does not decrypt what it receives (the first of
each connection apart, through `Connection`). Every row ends by count or time.
"""

import argparse
import base64
import json
import os
import time
from collections.abc import Iterator
from typing import Any

import trio

from triolet_protocol import ConnAckReceived, Connection, Role

RECVACK_HEAD = b"\x62\x0c"


def frames(buffer: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield (type, start of the body, end) of each whole frame."""
    offset, size = 0, len(buffer)
    while offset < size:
        kind = buffer[offset] >> 4
        if kind in (7, 8):
            yield kind, offset + 1, offset + 1
            offset += 1
            continue
        length = shift = 0
        at = offset + 1
        while at < size:
            byte = buffer[at]
            length |= (byte & 0x7F) << shift
            shift += 7
            at += 1
            if byte < 0x80:
                break
        else:
            return
        if at + length > size:
            return
        yield kind, at, at + length
        offset = at + length


def ack_of(buffer: bytes, start: int) -> bytes:
    """Return the RECVACK of the RECV whose body begins at `start` (version 5)."""
    at = start + 1
    for _ in range(3):
        at += 2 + (buffer[at] << 8 | buffer[at + 1])
    at += 5
    at += 2 + (buffer[at] << 8 | buffer[at + 1])
    return RECVACK_HEAD + buffer[at : at + 12]


class Peer:
    """One client connection."""

    def __init__(self, uid: str) -> None:
        self.uid = uid
        self.connection = Connection(Role.CLIENT)
        self.sent: dict[int, float] = {}
        self.seq = 0
        self.acked = 0
        self.received = 0
        self.latencies: list[float] = []
        self._rest = b""
        self._payload = b""

    async def open(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self.stream = await trio.open_tcp_stream(host, int(port))
        self.stream.setsockopt(6, 1, 1)
        await self.stream.send_all(
            self.connection.connect(
                uid=self.uid,
                token="",
                device_id=self.uid,
                device_flag=0,
                client_timestamp=0,
                private_key=os.urandom(32),
            )
        )
        while True:
            self.connection.receive_data(await self.stream.receive_some(4096))
            for event in self.connection.events():
                assert isinstance(event, ConnAckReceived)
                assert event.connack.reason_code == 1
                return

    def messages(self, channel: str, kind: int, count: int) -> bytes:
        out = []
        for _ in range(count):
            self.seq += 1
            self.sent[self.seq] = time.perf_counter()
            out.append(
                self.connection.send_message(
                    client_seq=self.seq,
                    client_msg_no=f"{self.uid}-{self.seq}",
                    channel_id=channel,
                    channel_type=kind,
                    payload=b"x" * 64,
                )
            )
        return b"".join(out)

    async def read(self) -> int:
        """Handle one read; returns the SENDACKs in it."""
        data = await self.stream.receive_some(65536)
        if not data:
            raise EOFError(self.uid)
        buffer = self._rest + data
        used = acks = 0
        answers = []
        now = time.perf_counter()
        for kind, start, end in frames(buffer):
            used = end
            if kind == 4:
                acks += 1
                self.latencies.append(now - self.sent.pop(int.from_bytes(buffer[start + 8 : start + 12], "big")))
                assert buffer[end - 1] == 1
            elif kind == 5:
                self.received += 1
                answers.append(ack_of(buffer, start))
        self._rest = buffer[used:]
        self.acked += acks
        if answers:
            await self.stream.send_all(b"".join(answers))
        return acks


async def open_all(peers: list[Peer], address: str, *, parallel: int = 32) -> float:
    """Log everybody in; returns seconds."""
    limiter = trio.CapacityLimiter(parallel)

    async def one(peer: Peer) -> None:
        async with limiter:
            await peer.open(address)

    start = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for peer in peers:
            nursery.start_soon(one, peer)
    return time.perf_counter() - start


async def send_for(peer: Peer, channel: str, kind: int, window: int, until: float) -> None:
    """Keep `window` messages in flight until the time is up, then wait for the rest."""
    await peer.stream.send_all(peer.messages(channel, kind, window))
    while peer.sent:
        acks = await peer.read()
        if acks and time.perf_counter() < until:
            await peer.stream.send_all(peer.messages(channel, kind, acks))


async def listen(peer: Peer) -> None:
    while True:
        await peer.read()


async def pairs(args: argparse.Namespace, count: int, window: int) -> dict[str, Any]:
    """`count` pairs, one end sends to the other."""
    senders = [Peer(f"s{n}") for n in range(count)]
    receivers = [Peer(f"r{n}") for n in range(count)]
    await open_all(senders + receivers, args.tcp)
    start = time.perf_counter()
    async with trio.open_nursery() as listeners:
        for peer in receivers:
            listeners.start_soon(listen, peer)
        async with trio.open_nursery() as nursery:
            for sender, receiver in zip(senders, receivers, strict=True):
                nursery.start_soon(send_for, sender, receiver.uid, 1, window, start + args.seconds)
        taken = time.perf_counter() - start
        acked = sum(peer.acked for peer in senders)
        with trio.move_on_after(10):
            while sum(peer.received for peer in receivers) < acked:
                await trio.sleep(0.01)
        listeners.cancel_scope.cancel()
    received = sum(peer.received for peer in receivers)
    assert received == acked, (received, acked)
    return {"count": acked, "per_second": acked / taken, **percentiles([x for p in senders for x in p.latencies])}


async def group(args: argparse.Namespace, members: int, window: int) -> dict[str, Any]:
    """One sender in a group whose members are all online."""
    peers = [Peer(f"m{n}") for n in range(members)]
    sender = Peer("sender")
    await open_all([*peers, sender], args.tcp)
    uids = [peer.uid for peer in peers] + ["sender"]
    await post(args.http, "/channel", {"channel_id": "big", "channel_type": 2, "subscribers": uids})
    start = time.perf_counter()
    async with trio.open_nursery() as listeners:
        for peer in peers:
            listeners.start_soon(listen, peer)
        await send_for(sender, "big", 2, window, start + args.seconds)
        with trio.move_on_after(60):
            while min(peer.received for peer in peers) < sender.acked:
                await trio.sleep(0.01)
        taken = time.perf_counter() - start
        listeners.cancel_scope.cancel()
    delivered = sum(peer.received for peer in peers)
    assert delivered == sender.acked * members, (delivered, sender.acked)
    return {"count": delivered, "per_second": delivered / taken, "messages": sender.acked}


async def handshakes(args: argparse.Namespace, count: int) -> dict[str, Any]:
    """Logins, 32 at a time."""
    taken = await open_all([Peer(f"h{n}") for n in range(count)], args.tcp)
    return {"count": count, "per_second": count / taken}


async def idle(args: argparse.Namespace, count: int) -> dict[str, Any]:
    """Connections that are only there; the caller reads the server's memory when told."""
    before = rss_kb(args.pid)
    peers = [Peer(f"i{n}") for n in range(count)]
    await open_all(peers, args.tcp)
    await trio.sleep(1)
    return {"count": count, "kb_per_connection": (rss_kb(args.pid) - before) / count, "rss_kb_before": before}


def rss_kb(pid: int) -> int:
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024


# --- HTTP


class Http:
    """A keep-alive connection, as little as can measure."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._rest = b""

    async def post(self, path: str, body: bytes) -> bytes:
        head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n".encode()
        await self._stream.send_all(head + body)
        while b"\r\n\r\n" not in self._rest:
            self._rest += await self._stream.receive_some(65536)
        head, _, rest = self._rest.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        length = int(next(x for x in head.lower().split(b"\r\n") if x.startswith(b"content-length")).split(b":")[1])
        while len(rest) < length:
            rest += await self._stream.receive_some(65536)
        self._rest = rest[length:]
        return rest[:length]


async def open_http(address: str) -> Http:
    host, _, port = address.rpartition(":")
    return Http(await trio.open_tcp_stream(host, int(port)))


async def post(address: str, path: str, body: Any) -> Any:
    return json.loads(await (await open_http(address)).post(path, json.dumps(body).encode()))


async def requests(args: argparse.Namespace, path: str, body: Any) -> dict[str, Any]:
    """16 connections, one request after the other each; `body(n)` makes them."""
    latencies: list[float] = []

    async def one(number: int, until: float) -> None:
        http = await open_http(args.http)
        count = 0
        while time.perf_counter() < until:
            count += 1
            began = time.perf_counter()
            await http.post(path, json.dumps(body(number * 10**6 + count)).encode())
            latencies.append(time.perf_counter() - began)

    start = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for number in range(16):
            nursery.start_soon(one, number, start + args.seconds)
    taken = time.perf_counter() - start
    return {"count": len(latencies), "per_second": len(latencies) / taken, **percentiles(latencies)}


async def http_send(args: argparse.Namespace) -> dict[str, Any]:
    """POST /message/send."""
    payload = base64.b64encode(b"x" * 64).decode()
    return await requests(
        args,
        "/message/send",
        lambda n: {"from_uid": f"a{n % 16}", "channel_id": "b", "channel_type": 1, "payload": payload},
    )


async def history(args: argparse.Namespace) -> dict[str, Any]:
    """POST /channel/messagesync, pages of 100 from many messages in one channel."""
    sender = Peer("writer")
    await sender.open(args.tcp)
    await post(args.http, "/channel", {"channel_id": "h", "channel_type": 2, "subscribers": ["writer"]})
    while sender.acked < args.messages:
        await sender.stream.send_all(sender.messages("h", 2, 250))
        while sender.sent:
            await sender.read()
    base = {"login_uid": "writer", "channel_id": "h", "channel_type": 2, "limit": 100, "pull_mode": 1}
    pages = max(args.messages - 100, 1)
    found = await requests(args, "/channel/messagesync", lambda n: {**base, "start_message_seq": 1 + n * 7919 % pages})
    return {**found, "messages": args.messages}


def percentiles(seconds: list[float]) -> dict[str, float]:
    ordered = sorted(seconds)
    return {f"p{q}_ms": round(ordered[min(len(ordered) - 1, len(ordered) * q // 100)] * 1000, 2) for q in (50, 99)}


ROWS = {
    "person_to_person": lambda args: pairs(args, 50, 32),
    "window_1": lambda args: pairs(args, 10, 1),
    "group_1000": lambda args: group(args, 1000, 8),
    "handshakes": lambda args: handshakes(args, args.logins),
    "idle_memory": lambda args: idle(args, args.connections),
    "http_send": http_send,
    "history": history,
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("row", choices=ROWS)
    parser.add_argument("--tcp", required=True)
    parser.add_argument("--http", required=True)
    parser.add_argument("--pid", type=int, required=True)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--logins", type=int, default=2000)
    parser.add_argument("--connections", type=int, default=5000)
    args = parser.parse_args()
    print(json.dumps(trio.run(ROWS[args.row], args)))


if __name__ == "__main__":
    main()
