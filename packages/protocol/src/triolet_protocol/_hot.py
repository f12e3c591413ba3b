"""What runs per message, for whole batches: SENDs and RECVACKs in, RECVs and SENDACKs out.

Plain slices and prebuilt structs instead of the field readers of `_codec`; the tests hold both to the same bytes.
`triolet_speedups` has the same functions compiled; `_choice` says which are used, and tests compare them.
"""

import struct
from collections.abc import Sequence
from typing import Protocol

from triolet_protocol import _frames as frames
from triolet_protocol._crypto import SessionKeys
from triolet_protocol._errors import PayloadError
from triolet_protocol._messages import read_messages as read_messages
from triolet_protocol._messages import write_messages as write_messages
from triolet_protocol._numbers import SETTING_STREAM, SETTING_STREAM_V1, SETTING_TOPIC, ReasonCode
from triolet_protocol._sockets import Left
from triolet_protocol._sockets import read_sockets as read_sockets
from triolet_protocol._sockets import write_sockets as write_sockets
from triolet_protocol._varint import encode_length

RECV_OVERHEAD = 640
"""What a RECV may be longer than the SEND it comes from: the sender's uid, ids, time."""

_STREAM_BITS = SETTING_STREAM | SETTING_STREAM_V1
_UNUSUAL_SETTING = _STREAM_BITS | SETTING_TOPIC
_NO_PERSIST = 0x01
_LONG = 0x80
"""Set in the first byte of the length of a string that is too long (`_fields.MAX_STRING`)."""
_RECVACK_SIZE = 12
_BAD_PAYLOAD = int(ReasonCode.PAYLOAD_DECODE_ERROR)
_SENDACK_HEAD = 17
SENDACK_BYTES = 2 + _SENDACK_HEAD
_SENDACK = struct.Struct(">BBqIIB")
_LIMAO_SENDACK = struct.Struct(">BBIqIB")
_IDS = struct.Struct(">qIi")

SendFields = tuple[str, int, bytes, str, int, int, int, str, int]
"""What a SEND says, in the order of the server's drafts: channel_id, channel_type, payload (decrypted), client_msg_no,
flags, setting, expire, topic, refusal (a reason, 0 if there is none)."""

Mark = tuple[int, int]
"""What a SENDACK repeats of its SEND: (client_seq, flags)."""

Receipt = tuple[int, int, int]
"""The answer to a SEND: (reason, message id, seq)."""

Read = tuple[int, list[SendFields], list[Mark], list[int], int, int]
"""(offset of the first byte not read, SENDs, their marks, message ids of RECVACKs that end repetition, number of
RECVACKs, number of PINGs)."""

RecvFields = tuple[int, int, int, int, int, int, int, str, str, str, str, bytes]
"""A message as its receivers see it: message_id, seq, channel_type, timestamp, setting, expire, flags, client_msg_no,
channel_id, from_uid, topic, payload (plain)."""


class HasType(Protocol):
    """A channel."""

    @property
    def type(self) -> int: ...


class Delivered(Protocol):
    """What a RECV needs to know of a message; the server's messages fit."""

    @property
    def message_id(self) -> int: ...
    @property
    def seq(self) -> int: ...
    @property
    def channel(self) -> HasType: ...
    @property
    def timestamp(self) -> int: ...
    @property
    def setting(self) -> int: ...
    @property
    def expire(self) -> int: ...
    @property
    def client_msg_no(self) -> str: ...
    @property
    def topic(self) -> str: ...
    @property
    def payload(self) -> bytes: ...


class Peer:
    """The client of one connection: the layout that it speaks and the keys agreed on, if there are any."""

    __slots__ = ("_keys", "is_limao", "version")

    def __init__(self, version: int, *, limao: bool = False, key: bytes = b"", iv: bytes = b"") -> None:
        self.version = version
        self.is_limao = limao
        self._keys = SessionKeys(key, iv) if key else None

    @property
    def keys(self) -> SessionKeys | None:
        """What payloads are encrypted with."""
        return self._keys

    @property
    def is_encrypted(self) -> bool:
        """Whether payloads are."""
        return self._keys is not None

    def encrypt(self, plain: bytes) -> bytes:
        """Return the text of an encrypted payload; without keys the payload as it is."""
        return plain if self._keys is None else self._keys.encrypt(plain)

    def decrypt(self, text: bytes) -> bytes | None:
        """Return the plain bytes of an encrypted payload, None if it is none."""
        if self._keys is None:
            return text
        try:
            return self._keys.decrypt(text)
        except PayloadError:
            return None

    def msg_key(self, sign: bytes) -> str:
        """Return the message key of a sign text, empty without keys."""
        return "" if self._keys is None else self._keys.msg_key(sign)


# --- in


def aes_keys(private: bytes, publics: Sequence[bytes], /) -> list[bytes] | None:
    """Return the AES keys of several clients, b"" for each whose shared secret is zero (see `_crypto.KeyPair`).

    None if one at a time is as fast, as it is in Python and on processors without the instructions for it.

    Args:
        private: Our private key, 32 bytes.
        publics: Keys of clients, 32 bytes each.
    """
    return None


def read_batch(peer: Peer, buffer: bytes, offset: int, max_frame: int) -> Read:
    """Read SENDs, RECVACKs and PINGs from `offset` on, in WuKongIM's layout.

    Stops at whatever else comes, is unusual, broken or not all there: that is left to `_codec`, which has the words
    for it. A SEND with a wrong message key, or whose payload does not decrypt or would not fit into a RECV of
    `max_frame` bytes, has a refusal.
    """
    sends: list[SendFields] = []
    marks: list[Mark] = []
    acked: list[int] = []
    recvacks = pings = 0
    size = len(buffer)
    while offset < size:
        kind = buffer[offset] >> 4
        if kind == frames.PING:
            pings += 1
            offset += 1
            continue
        if kind not in (frames.SEND, frames.RECVACK):
            break
        start, end = _body(buffer, offset)
        if not start or end > size or end - start > max_frame:
            break
        flags = buffer[offset] & 0x0F
        if kind == frames.RECVACK:
            if end - start < _RECVACK_SIZE:
                break
            recvacks += 1
            if not flags & _NO_PERSIST:
                acked.append(int.from_bytes(buffer[start : start + 8], "big", signed=True))
        else:
            is_too_long = end - start + RECV_OVERHEAD > max_frame
            found = _read_send(peer, buffer[start:end], flags, is_too_long=is_too_long)
            if found is None:
                break
            sends.append(found[0])
            marks.append(found[1])
        offset = end
    return offset, sends, marks, acked, recvacks, pings


def match_recvacks(buffer: bytes, offset: int, ids: bytes, start: int) -> tuple[int, int]:
    """Read RECVACKs from `offset` on for as long as they confirm messages in order, in WuKongIM's layout.

    Most reads are nothing else, and need no objects this way.

    Args:
        buffer: What came in.
        offset: Where a frame begins.
        ids: The messages' ids, 8 bytes each, in network order.
        start: The first of them that is looked for.

    Returns:
        (number of RECVACKs read, offset of the first byte behind them).
    """
    count = 0
    for place in range(8 * start, len(ids), 8):
        head = buffer[offset : offset + 2]
        is_one = len(head) == 2 and head[0] >> 4 == frames.RECVACK and not head[0] & _NO_PERSIST
        end = offset + 2 + _RECVACK_SIZE
        if not is_one or head[1] != _RECVACK_SIZE or end > len(buffer):
            break
        if buffer[offset + 2 : offset + 10] != ids[place : place + 8]:
            break
        offset = end
        count += 1
    return count, offset


def _body(buffer: bytes, offset: int) -> tuple[int, int]:
    """Return where the body of a frame starts and ends; (0, 0) if its length is incomplete or broken."""
    head = buffer[offset + 1 : offset + 5]
    length = 0
    for used, byte in enumerate(head, 1):
        length |= (byte & 0x7F) << (7 * used - 7)
        if byte < 0x80:
            start = offset + 1 + used
            return start, start + length
    return 0, 0


def _read_send(peer: Peer, body: bytes, flags: int, *, is_too_long: bool) -> tuple[SendFields, Mark] | None:
    """Decode the body of an ordinary SEND, check its key and decrypt; None if it is unusual or broken."""
    setting = body[0] if body else 0xFF
    size = len(body)
    if setting & _UNUSUAL_SETTING or size < 7 or body[5] & _LONG:
        return None
    a = 7 + (body[5] << 8 | body[6])
    if a + 2 > size or body[a] & _LONG:
        return None
    b = a + 2 + (body[a] << 8 | body[a + 1])
    c = b + 1 if peer.version < 3 else b + 5
    if c + 2 > size or body[c] & _LONG:
        return None
    d = c + 2 + (body[c] << 8 | body[c + 1])
    if d > size:
        return None
    client_seq, kind, msg_key = int.from_bytes(body[1:5], "big"), body[b], body[c + 2 : d]
    try:
        client_msg_no, channel_id = body[7:a].decode(), body[a + 2 : b].decode()
        msg_key.decode()
    except UnicodeDecodeError:
        return None
    payload, refusal = body[d:], 0
    if is_too_long:
        payload, refusal = b"", _BAD_PAYLOAD
    elif peer.keys is not None:
        sign = b"%d%b%b%d%b" % (client_seq, body[7:a], body[a + 2 : b], kind, payload)
        plain = peer.decrypt(payload) if peer.msg_key(sign).encode() == msg_key else None
        payload, refusal = (payload, _BAD_PAYLOAD) if plain is None else (plain, 0)
    expire = 0 if peer.version < 3 else int.from_bytes(body[b + 1 : c], "big")
    fields = (channel_id, kind, payload, client_msg_no, flags, setting, expire, "", refusal)
    return fields, (client_seq, flags)


# --- out


def recv_fields(message: Delivered, channel_id: str, from_uid: str, flags: int) -> RecvFields:
    """Return what the RECV of a message says to a receiver who sees this channel and sender."""
    return (
        message.message_id,
        message.seq,
        message.channel.type,
        message.timestamp,
        message.setting,
        message.expire,
        flags,
        message.client_msg_no,
        channel_id,
        from_uid,
        message.topic,
        message.payload,
    )


def write_recvs(recvs: Sequence[RecvFields], peers: Sequence[Peer]) -> list[bytes]:
    """Encode messages for each of several receivers, encrypted and signed; without stream bits below version 5."""
    return [b"".join([_write_recv(recv, peer) for recv in recvs]) for peer in peers]


def send_recvs(
    recvs: Sequence[RecvFields], peers: Sequence[Peer], descriptors: Sequence[int]
) -> tuple[list[int], list[Left]]:
    """Encode messages for each of several receivers, and send them where a descriptor is given.

    Python sends nothing: the compiled twin does, to every receiver in one call.

    Args:
        recvs: The messages.
        peers: Who gets them.
        descriptors: For each a non-blocking socket that nothing else has to be sent to first; -1 where there is none.
            None of them may be closed meanwhile.

    Returns:
        (bytes of the frames of each receiver, what sockets did not take, be they full, broken or none).
    """
    if len(descriptors) != len(peers):
        raise ValueError("there are not as many descriptors as peers")
    frames = write_recvs(recvs, peers)
    return [len(each) for each in frames], [(number, each) for number, each in enumerate(frames) if each]


def _write_recv(recv: RecvFields, peer: Peer) -> bytes:
    message_id, seq, kind, timestamp, setting, expire, flags, client_msg_no, channel_id, from_uid, topic, payload = recv
    no, channel, sender = client_msg_no.encode(), channel_id.encode(), from_uid.encode()
    seq &= 0xFFFFFFFF
    version = peer.version
    msg_key = b""
    if peer.keys is not None:
        payload = peer.encrypt(payload)
        sign = b"%d%d%b%d%b%b%d%b" % (message_id, seq, no, timestamp, sender, channel, kind, payload)
        msg_key = peer.msg_key(sign).encode()
    if version < 5:
        setting &= ~_STREAM_BITS
    if peer.is_limao:
        parts = (
            bytes((setting,)) if version >= 4 else b"",
            _text(msg_key) if version >= 3 else b"",
            _IDS.pack(message_id, seq, timestamp)[:12],
            _text(no) if version >= 2 else b"",
            timestamp.to_bytes(4, "big", signed=True),
            _text(channel),
            bytes((kind,)),
            _text(sender),
            payload,
        )
    else:
        parts = (
            bytes((setting,)),
            _text(msg_key),
            _text(sender),
            _text(channel),
            bytes((kind,)) + (expire.to_bytes(4, "big") if version >= 3 else b""),
            _text(no),
            _IDS.pack(message_id, seq, timestamp),
            _text(topic.encode()) if setting & SETTING_TOPIC else b"",
            payload,
        )
    body = b"".join(parts)
    return bytes((frames.RECV << 4 | flags & 0x0F,)) + encode_length(len(body)) + body


def _text(raw: bytes) -> bytes:
    return len(raw).to_bytes(2, "big") + raw


def write_sendacks(marks: Sequence[Mark], receipts: Sequence[Receipt], *, limao: bool) -> bytes:
    """Encode the SENDACKs of a batch, one behind the other."""
    answers = zip(marks, receipts, strict=True)
    if limao:
        pack = _LIMAO_SENDACK.pack
        return b"".join(
            [pack(0x40, _SENDACK_HEAD, client_seq, mid, n & 0xFFFFFFFF, r) for (client_seq, _), (r, mid, n) in answers]
        )
    pack = _SENDACK.pack
    return b"".join(
        [
            pack(0x40 | flags & 0x0F, _SENDACK_HEAD, mid, client_seq, n & 0xFFFFFFFF, r)
            for (client_seq, flags), (r, mid, n) in answers
        ]
    )
