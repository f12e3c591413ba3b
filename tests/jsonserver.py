"""The server's part in a JSON-RPC conversation, where only the protocol is tested."""

import triolet_protocol as wire
from triolet_core.model import Receipt


def answer(connection: wire.JsonConnection, event: wire.Event) -> bytes:
    """Return what a server writes after an event, for those who have none to ask."""
    match event:
        case wire.ConnectReceived():
            return connection.accept(b"", b"", time_diff_ms=0, node_id=1)
        case wire.PingReceived():
            return connection.send(wire.Pong())
        case wire.SendReceived():
            receipt = Receipt(event.refusal or 1, 1, 1)
            return b"".join(connection.encode_sendacks([(event.send.client_seq, event.send.flags)], [receipt]))
        case wire.SubReceived():
            sub = event.sub
            return connection.send(wire.SubAck(sub.sub_no, sub.channel_id, sub.channel_type, sub.action, 1))
        case wire.AnswerReady():
            return event.answer
        case _:
            return b""
