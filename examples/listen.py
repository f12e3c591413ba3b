"""Connect as a user and print what arrives: python examples/listen.py UID TOKEN [HOST:PORT]."""

import os
import sys
import time

import trio

from triolet_protocol import ConnAckReceived, Connection, RecvReceived, Role


async def main(uid: str, token: str, address: str = "127.0.0.1:5100") -> None:
    """Listen until the server closes the connection or the program is interrupted."""
    host, _, port = address.rpartition(":")
    connection = Connection(Role.CLIENT)
    async with await trio.open_tcp_stream(host, int(port)) as stream:
        hello = connection.connect(
            uid=uid,
            token=token,
            device_id="listen-example",
            device_flag=1,
            client_timestamp=int(time.time() * 1000),
            private_key=os.urandom(32),
        )
        await stream.send_all(hello)
        async for data in stream:
            connection.receive_data(data)
            for event in connection.events():
                match event:
                    case ConnAckReceived():
                        print(f"connected as {uid}", flush=True)
                    case RecvReceived():
                        recv = event.recv
                        print(f"{recv.from_uid} -> {recv.payload.decode()}  (seq {recv.message_seq})", flush=True)
                        await stream.send_all(connection.recv_ack(recv))


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    try:
        trio.run(main, *sys.argv[1:])
    except KeyboardInterrupt:
        sys.exit(0)
