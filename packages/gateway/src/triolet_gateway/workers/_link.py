"""A stream of frames between the core and one worker: in each a list of msgpack objects, and how many were received.

Frame: length of what follows the head (4 bytes), frames received so far (4 bytes, modulo 2**32), a msgpack array.
Objects are encoded where they are made, one frame of all that wait is sent each time the socket has room. Descriptors
go with the frame that speaks of them, in its order.
"""

import array
import socket
import struct
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Generic, TypeVar

import msgspec
import trio

READ_BYTES = 262144
MOST_DESCRIPTORS = 250
"""That one call sends. Linux takes 253 (SCM_MAX_FD)."""
DESCRIPTORS_WAITING = 1024
STALLED_S = 30.0
"""An end that reads nothing for so long is taken for dead."""
_HEAD = struct.Struct(">IIBI")
_HEAD_BYTES = 8
_ARRAY_32 = 0xDD
_ANCILLARY_BYTES = socket.CMSG_SPACE(MOST_DESCRIPTORS * array.array("i").itemsize)

T = TypeVar("T")


class LinkStalled(Exception):
    """The other end reads nothing."""


class SocketsLost(Exception):
    """Descriptors came that found no place in this process, so that nobody can tell which are missing."""


class Link(Generic[T]):
    """One end. Unbounded by itself: whoever puts looks at `pending`."""

    def __init__(self, sock: socket.socket, decoder: "msgspec.msgpack.Decoder[list[T]]") -> None:
        sock.setblocking(False)  # noqa: FBT003  # that is its signature
        self._socket = sock
        self._decoder = decoder
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._outgoing = bytearray()
        self._given: deque[tuple[socket.socket, bytes]] = deque()
        self._going: list[socket.socket] = []
        """Sockets that go with the first bytes of `_outgoing`."""
        self._is_corked = False
        self._wake = trio.Event()
        self._room = trio.Event()
        self._buffer = b""
        self._offset = 0
        """Where the next frame begins in it."""
        self._returned = 0
        self.taken: deque[int] = deque()
        """Descriptors that came, the oldest first."""
        self.received = 0
        """Frames that were received and handled."""
        self.sent = 0
        """Frames that were made."""
        self.confirmed = 0
        """Frames of ours that the other end has handled."""

    @property
    def pending(self) -> int:
        """Bytes that wait for the other end."""
        return self._waiting_bytes + len(self._outgoing)

    def put(self, *encoded: bytes) -> None:
        """Send objects soon."""
        self._waiting += encoded
        self._waiting_bytes += sum(map(len, encoded))
        if not self._is_corked:
            self._wake.set()

    def __enter__(self) -> None:
        """Collect what is put, without a checkpoint meanwhile; it is sent at the end, on the spot if there is room."""
        self._is_corked = True

    def __exit__(self, *_: object) -> None:
        self._is_corked = False
        if not self._outgoing:
            with suppress(OSError):  # whoever reads sees the same, and the writer raises it
                self._frame()
                self._send()
        if self.pending or self._given:
            self._wake.set()

    def give(self, sock: socket.socket, encoded: bytes) -> bool:
        """Send an object and a socket, which is closed here; False, and nothing done, if too many wait."""
        if len(self._given) >= DESCRIPTORS_WAITING:
            return False
        self._given.append((sock, encoded))
        self.put()
        return True

    # --- out

    async def write_forever(self) -> None:
        """Send what is put.

        Raises:
            OSError: The other end is gone.
            LinkStalled: It reads nothing.
        """
        while True:
            while self.pending or self._given:
                self._frame()
                if not self._send():
                    with trio.move_on_after(STALLED_S) as patience:
                        await trio.lowlevel.wait_writable(self._socket)
                    if patience.cancelled_caught:
                        raise LinkStalled
            self._room.set()
            self._wake = trio.Event()
            await self._wake.wait()

    async def wait_room(self, most_bytes: int) -> None:
        """Wait while more than `most_bytes` wait for the other end. Not always a checkpoint."""
        while self.pending > most_bytes:
            self._room = trio.Event()
            await self._room.wait()

    def _frame(self) -> None:
        """Join what waits into a frame. One that is not sent yet is waited for, so that there are few, large ones.

        Objects with sockets go first, as many as may go in one call with theirs; what follows may speak of them.
        """
        if self._given:
            if not self._outgoing:
                given = [self._given.popleft() for _ in range(min(len(self._given), MOST_DESCRIPTORS))]
                self._going = [sock for sock, _ in given]
                self._append([encoded for _, encoded in given])
        elif self._waiting and len(self._outgoing) <= READ_BYTES:
            waiting, self._waiting, self._waiting_bytes = self._waiting, [], 0
            self._append(waiting)

    def _append(self, objects: Sequence[bytes]) -> None:
        body = b"".join(objects)
        self._outgoing += _HEAD.pack(len(body) + 5, self.received & 0xFFFFFFFF, _ARRAY_32, len(objects)) + body
        self.sent += 1

    def _send(self) -> bool:
        """Send what the socket takes; False if it is full."""
        if self._outgoing:
            numbers = array.array("i", [each.fileno() for each in self._going])
            ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, numbers)] if self._going else []
            try:
                sent = self._socket.sendmsg([self._outgoing], ancillary)
            except BlockingIOError:
                return False
            for each in self._going:
                each.close()
            self._going = []
            del self._outgoing[:sent]
        return True

    # --- in

    async def next_frame(self) -> list[T] | None:
        """Return the objects of the next frame, None when the other end is gone. The frame before is handled now.

        Not always a checkpoint.

        Raises:
            ValueError: What came is not what it should be; so does `msgspec.MsgspecError`.
            SocketsLost: This process has too many open files.
        """
        self.received = self._returned
        while not (end := self._end_of_frame(self._offset)) or end > len(self._buffer):
            await trio.lowlevel.wait_readable(self._socket)
            data = self._read()
            if data:
                self._buffer = self._buffer[self._offset :] + data
                self._offset = 0
            elif data is not None:
                return None
        head = self._buffer[self._offset : self._offset + _HEAD_BYTES]
        self.confirmed = int.from_bytes(head[4:], "big")
        items = self._decoder.decode(memoryview(self._buffer)[self._offset + _HEAD_BYTES : end])
        self._offset = end
        self._returned += 1
        return items

    def _end_of_frame(self, offset: int) -> int:
        """Return where the frame ends that begins at `offset`, 0 if that cannot be told yet."""
        if len(self._buffer) - offset < _HEAD_BYTES:
            return 0
        return offset + _HEAD_BYTES + int.from_bytes(self._buffer[offset : offset + 4], "big")

    def _read(self) -> bytes | None:
        try:
            data, ancillary, flags, _ = self._socket.recvmsg(READ_BYTES, _ANCILLARY_BYTES)
        except BlockingIOError:
            return None
        except OSError:
            return b""
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                numbers = array.array("i")
                numbers.frombytes(content[: len(content) - len(content) % numbers.itemsize])
                self.taken.extend(numbers)
        if flags & socket.MSG_CTRUNC:
            raise SocketsLost
        return data

    def close(self) -> None:
        """Close this end, and what was not sent."""
        for each in (*self._going, *(sock for sock, _ in self._given)):
            each.close()
        self._going.clear()
        self._given.clear()
        while self.taken:
            with suppress(OSError):
                socket.close(self.taken.popleft())
        self._socket.close()
