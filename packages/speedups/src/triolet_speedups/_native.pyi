from collections.abc import Sequence
from typing import Any, final

INTERFACE: int

@final
class Peer:
    version: int
    is_limao: bool
    @property
    def is_encrypted(self) -> bool: ...
    def __new__(cls, version: int, *, limao: bool = False, key: bytes = b"", iv: bytes = b"") -> Peer: ...
    def encrypt(self, plain: bytes, /) -> bytes: ...
    def decrypt(self, text: bytes, /) -> bytes | None: ...
    def msg_key(self, sign: bytes, /) -> str: ...

def aes_keys(private: bytes, publics: Sequence[bytes], /) -> list[bytes] | None: ...
def read_batch(
    peer: Peer, buffer: bytes, offset: int, max_frame: int
) -> tuple[
    int,
    list[tuple[str, int, bytes, str, int, int, int, str, int]],
    list[tuple[int, int]],
    list[int],
    int,
    int,
]: ...
def match_recvacks(buffer: bytes, offset: int, ids: bytes, start: int) -> tuple[int, int]: ...
def read_messages(buffer: bytes, offset: int, limit: int) -> tuple[bytes, int]: ...
def receive_requests(
    descriptor: int, size: int, paths: dict[str, object], most: int
) -> tuple[list[tuple[str, bytes, dict[str, str], bytes]], bytes, int] | None: ...
def message_rows(
    messages: list[Any], prefix: bytes, log_prefix: bytes, place: bytes, /
) -> list[tuple[bytes, bytes]]: ...
def encode_rows(rows: list[tuple[bytes, bytes]], /) -> bytes: ...
def page_text(
    rows: list[tuple[bytes, bytes]],
    prefix: bytes,
    channel_id: str,
    channel_type: int,
    *,
    between: tuple[int, int],
    limit: int,
) -> tuple[bytes, bool] | None: ...
def run_text(
    records: list[bytes],
    first: int,
    channel_id: str,
    channel_type: int,
    *,
    upwards: bool,
    between: tuple[int, int],
    limit: int,
) -> tuple[bytes, bool] | None: ...
def write_messages(joined: Sequence[bytes]) -> bytes: ...
def write_recvs(
    recvs: Sequence[tuple[int, int, int, int, int, int, int, str, str, str, str, bytes]], peers: Sequence[Peer]
) -> list[bytes]: ...
def send_recvs(
    recvs: Sequence[tuple[int, int, int, int, int, int, int, str, str, str, str, bytes]],
    peers: Sequence[Peer],
    descriptors: Sequence[int],
) -> tuple[list[int], list[tuple[int, bytes]]]: ...
def write_sendacks(
    marks: Sequence[tuple[int, int]], receipts: Sequence[tuple[int, int, int]], *, limao: bool
) -> bytes: ...
def read_sockets(descriptors: Sequence[int], most: int, enough: int) -> list[bytes | None]: ...
def write_synced(descriptor: int, data: bytes, offset: int, /) -> float: ...
def write_sockets(outgoing: Sequence[tuple[int, bytes]]) -> list[tuple[int, bytes]]: ...
