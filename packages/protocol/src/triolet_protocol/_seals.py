"""Message keys and encryption of single frames. Source: wire-protocol.md, section 4."""

from triolet_protocol import _frames as frames
from triolet_protocol._choice import PeerLike
from triolet_protocol._errors import RemoteProtocolError
from triolet_protocol._frames import Family
from triolet_protocol._numbers import ReasonCode


def open_send(send: frames.Send, peer: PeerLike, family: Family) -> int:
    """Check the message key of a SEND and decrypt its payload in place; returns 0 or the reason to refuse it."""
    if not peer.is_encrypted:
        return 0
    if peer.msg_key(_sign_of(send)) != send.msg_key:
        return ReasonCode.MSG_KEY_ERROR if family is Family.LIMAO else ReasonCode.PAYLOAD_DECODE_ERROR
    plain = peer.decrypt(send.payload)
    if plain is None:
        return ReasonCode.PAYLOAD_DECODE_ERROR
    send.payload = plain
    return 0


def seal_send(send: frames.Send, peer: PeerLike) -> frames.Send:
    """Encrypt and sign a SEND in place."""
    send.payload = peer.encrypt(send.payload)
    send.msg_key = peer.msg_key(_sign_of(send))
    return send


def _sign_of(send: frames.Send) -> bytes:
    return f"{send.client_seq}{send.client_msg_no}{send.channel_id}{send.channel_type}".encode() + send.payload


def open_recv(recv: frames.Recv, peer: PeerLike) -> frames.Recv:
    """Check the message key of a RECV and decrypt its payload in place.

    Raises:
        RemoteProtocolError: The server did not seal it with these keys.
    """
    if not peer.is_encrypted:
        return recv
    head = f"{recv.message_id}{recv.message_seq}{recv.client_msg_no}{recv.timestamp}"
    sign = f"{head}{recv.from_uid}{recv.channel_id}{recv.channel_type}".encode() + recv.payload
    if peer.msg_key(sign) != recv.msg_key:
        raise RemoteProtocolError(ReasonCode.MSG_KEY_ERROR, "a RECV has a wrong message key")
    plain = peer.decrypt(recv.payload)
    if plain is None:
        raise RemoteProtocolError(ReasonCode.PAYLOAD_DECODE_ERROR, "the payload of a RECV does not decrypt")
    recv.payload = plain
    return recv
