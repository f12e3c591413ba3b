"""Which implementation of the hot path is in use: `triolet_speedups` if it is installed, else `_hot`.

Both are pure: bytes and numbers in, bytes and numbers out, the same for the same input. Three use sockets that are
given to them: `send_recvs` may also write, and returns what is still to be written; so does `write_sockets`, and
`read_sockets` reads.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, cast

from triolet_protocol import _compiled, _hot
from triolet_protocol._hot import Mark, Read, Receipt, RecvFields
from triolet_protocol._sockets import Left


class PeerLike(Protocol):
    """See `_hot.Peer`."""

    @property
    def is_encrypted(self) -> bool: ...

    def encrypt(self, plain: bytes, /) -> bytes: ...

    def decrypt(self, text: bytes, /) -> bytes | None: ...

    def msg_key(self, sign: bytes, /) -> str: ...


class HotPath(Protocol):
    """See `_hot`. A peer is one made by the same implementation."""

    def Peer(  # noqa: N802
        self, version: int, *, limao: bool = False, key: bytes = b"", iv: bytes = b""
    ) -> PeerLike: ...

    def aes_keys(self, private: bytes, publics: Sequence[bytes], /) -> Sequence[bytes] | None: ...

    def read_batch(self, peer: Any, buffer: bytes, offset: int, max_frame: int) -> Read: ...

    def match_recvacks(self, buffer: bytes, offset: int, ids: bytes, start: int) -> tuple[int, int]: ...

    def read_messages(self, buffer: bytes, offset: int, limit: int) -> tuple[bytes, int]: ...

    def write_messages(self, joined: Sequence[bytes]) -> bytes: ...

    def write_recvs(self, recvs: Sequence[RecvFields], peers: Sequence[Any]) -> list[bytes]: ...

    def send_recvs(
        self, recvs: Sequence[RecvFields], peers: Sequence[Any], descriptors: Sequence[int]
    ) -> tuple[list[int], list[Left]]: ...

    def write_sendacks(self, marks: Sequence[Mark], receipts: Sequence[Receipt], *, limao: bool) -> bytes: ...

    def read_sockets(self, descriptors: Sequence[int], most: int, enough: int) -> list[bytes | None]: ...

    def write_sockets(self, outgoing: Sequence[tuple[int, bytes]]) -> list[Left]: ...


PURE = cast("HotPath", _hot)


def choose(environ: Mapping[str, str]) -> HotPath:
    """Return the compiled functions if they are there and not switched off, else the Python ones."""
    return cast("HotPath", _compiled.find(environ)) or PURE
