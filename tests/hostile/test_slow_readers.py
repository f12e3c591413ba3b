"""Clients that never read, seen from outside: what they cost is what the settings say, and nothing is lost to them."""

import base64
import hashlib
import socket
from pathlib import Path

import pytest

import triolet_protocol as wire
from tests.hostile import outside
from tests.hostile.outside import Outside, eventually

DEAF = [f"deaf{number}" for number in range(4)]
MESSAGES = 2800
PAYLOAD_BYTES = 32 << 10
BATCH = 20
"""Messages to each in one write; then their SENDACKs are awaited."""
PAGE = 100
KIB = 1024
ALLOWED_KB = len(DEAF) * (1 + 1) * KIB + 2 * 16 * KIB + 3 * 4 * KIB + 40 * KIB
"""Outbox and unacknowledged pushes of each; the two generations of new messages that the commit log keeps (16 MiB
each); what one sender may have under way, as it came, decrypted and in the transaction; and what the store, its threads
and the allocator need for that, however much is sent. Measured: 50 to 62 MiB."""
pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


def payload(number: int) -> bytes:
    """Return the payload of one message, of bytes that no two have in common."""
    return hashlib.sha256(number.to_bytes(4, "big")).digest() * (PAYLOAD_BYTES // 32)


class Sender:
    """A client that sends to everybody and waits for its SENDACKs."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._sock = socket.create_connection(address, 30)
        self._connection = wire.Connection(wire.Role.CLIENT)
        who = {"uid": "sender", "token": "", "device_id": "d", "device_flag": 0, "client_timestamp": 0}
        self._sock.sendall(self._connection.connect(**who, private_key=bytes(32)))  # type: ignore[arg-type]
        [connack] = self._events()
        assert isinstance(connack, wire.ConnAckReceived)

    def _events(self) -> list[wire.Event]:
        while True:
            self._connection.receive_data(self._sock.recv(65536))
            if events := self._connection.events():
                return events

    def send(self, numbers: range) -> None:
        """Send some messages, each to all, and wait until they are stored."""
        for number in numbers:
            for place, uid in enumerate(DEAF):
                seq = number * len(DEAF) + place
                data = self._connection.send_message(
                    client_seq=seq, client_msg_no=f"n{seq}", channel_id=uid, channel_type=1, payload=payload(seq)
                )
                self._sock.sendall(data)
        missing = len(numbers) * len(DEAF)
        while missing:
            acks = [event.sendack for event in self._events() if isinstance(event, wire.SendAckReceived)]
            assert all(ack.reason_code == 1 for ack in acks)
            missing -= len(acks)

    def close(self) -> None:
        self._sock.close()


@pytest.mark.parametrize("kind", ["tcp", "ws"])
def test_four_that_never_read_cost_their_bounds_and_catch_up_later(tmp_path: Path, kind: str) -> None:
    """Sent 2,800 messages of 32 KB, they raised WuKongIM 2.2.5 from 43 to 449 MiB."""
    with outside.outside(tmp_path) as server:
        deaf = outside.log_in(server.address(kind), DEAF, is_websocket=kind == "ws", receive_bytes=4096)
        sender = Sender(server.address())
        before = highest = server.private_kb()
        each = MESSAGES // len(DEAF)
        for first in range(0, each, BATCH):
            sender.send(range(first, first + BATCH))
            highest = max(highest, server.private_kb())
        eventually(lambda: server.varz()["slow_clients"] == len(DEAF))
        assert highest - before < ALLOWED_KB, (before, highest)
        assert server.varz()["user_handler_conn_count"] == 1
        assert server.metric("triolet_gateway_outbox_bytes") == 0
        outside.wait_closed(deaf)
        for sock in deaf:
            sock.close()
        again = outside.log_in(server.address(), DEAF)
        for place, uid in enumerate(DEAF):
            catch_up(server, uid, [payload(number * len(DEAF) + place) for number in range(each)])
        for sock in again:
            sock.close()
        sender.close()


def catch_up(server: Outside, uid: str, expected: list[bytes]) -> None:
    """Synchronise a channel page by page; all of it is there, in order."""
    seen = 0
    while seen < len(expected):
        body = {"login_uid": uid, "channel_id": "sender", "channel_type": 1, "start_message_seq": seen + 1}
        answer = server.http.post("/channel/messagesync", json={**body, "limit": PAGE, "pull_mode": 1})
        messages = answer.raise_for_status().json()["messages"]
        assert [message["message_seq"] for message in messages] == list(range(seen + 1, seen + 1 + len(messages)))
        for message in messages:
            assert base64.b64decode(message["payload"]) == expected[message["message_seq"] - 1]
        seen += len(messages)
        assert messages
