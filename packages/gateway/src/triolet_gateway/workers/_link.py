"""A stream of frames between the core and one worker: in each a list of msgpack objects, and how many were received.

Frame: length of what follows the head (4 bytes), frames received so far (4 bytes, modulo 2**32), a msgpack array.
Objects are encoded where they are made, one frame of all that wait is sent each time the socket has room. Descriptors
go with the frame that speaks of them, in its order.
"""

import array
import socket
import struct
from collections import deque
from collections.abc import AsyncIterator
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


class Link(Generic[T]):
    """One end. Unbounded by itself: whoever puts looks at `pending`."""

    def __init__(self, sock: socket.socket, decoder: "msgspec.msgpack.Decoder[list[T]]") -> None:
        sock.setblocking(False)  # noqa: FBT003  # that is its signature
        self._socket = sock
        self._decoder = decoder
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._outgoing = bytearray()
        self._given: deque[socket.socket] = deque()
        self._is_corked = False
        self._wake = trio.Event()
        self._room = trio.Event()
        self._buffer = b""
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
        if not self.pending:
            return
        if self._outgoing or self._given:
            self._wake.set()
            return
        self._frame()
        with suppress(OSError):  # whoever reads sees the same, and the writer raises it
            self._send()
        if self._outgoing:
            self._wake.set()

    def give(self, sock: socket.socket, encoded: bytes) -> bool:
        """Send an object and a socket, which is closed here; False, and nothing done, if too many wait."""
        if len(self._given) >= DESCRIPTORS_WAITING:
            return False
        self._given.append(sock)
        self.put(encoded)
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
        """Join what waits into a frame. One that is not sent yet is waited for, so that there are few, large ones."""
        if not self._waiting or len(self._outgoing) > READ_BYTES:
            return
        count, size = len(self._waiting), self._waiting_bytes
        self._outgoing += _HEAD.pack(size + 5, self.received & 0xFFFFFFFF, _ARRAY_32, count)
        self._outgoing += b"".join(self._waiting)
        self._waiting.clear()
        self._waiting_bytes = 0
        self.sent += 1

    def _send(self) -> bool:
        """Send what the socket takes; False if it is full."""
        given = [self._given[number] for number in range(min(len(self._given), MOST_DESCRIPTORS))]
        numbers = array.array("i", [each.fileno() for each in given])
        try:
            ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, numbers)] if given else []
            sent = self._socket.sendmsg([self._outgoing], ancillary)
        except BlockingIOError:
            return False
        for each in given:
            self._given.popleft()
            each.close()
        del self._outgoing[:sent]
        return True

    # --- in

    async def frames(self) -> AsyncIterator[list[T]]:
        """Yield the objects of each frame; ends when the other end is gone.

        Raises:
            ValueError: What came is not what it should be.
        """
        while True:
            await trio.lowlevel.wait_readable(self._socket)
            data = self._read()
            if data is None:
                continue
            if not data:
                return
            self._buffer += data
            offset = 0
            while (end := self._end_of_frame(offset)) and end <= len(self._buffer):
                self.confirmed = int.from_bytes(self._buffer[offset + 4 : offset + 8], "big")
                items = self._decoder.decode(memoryview(self._buffer)[offset + _HEAD_BYTES : end])
                offset = end
                yield items
                self.received += 1
            self._buffer = self._buffer[offset:]

    def _end_of_frame(self, offset: int) -> int:
        """Return where the frame ends that begins at `offset`, 0 if that cannot be told yet."""
        if len(self._buffer) - offset < _HEAD_BYTES:
            return 0
        return offset + _HEAD_BYTES + int.from_bytes(self._buffer[offset : offset + 4], "big")

    def _read(self) -> bytes | None:
        try:
            data, ancillary, _, _ = self._socket.recvmsg(READ_BYTES, _ANCILLARY_BYTES)
        except BlockingIOError:
            return None
        except OSError:
            return b""
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                numbers = array.array("i")
                numbers.frombytes(content[: len(content) - len(content) % numbers.itemsize])
                self.taken.extend(numbers)
        return data

    def close(self) -> None:
        """Close this end, and what was not sent."""
        for each in self._given:
            each.close()
        self._given.clear()
        while self.taken:
            with suppress(OSError):
                socket.close(self.taken.popleft())
        self._socket.close()
