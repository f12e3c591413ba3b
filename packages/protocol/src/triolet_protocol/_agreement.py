"""Key agreements that are made before anybody has decided about the login."""

from collections.abc import Sequence

from triolet_protocol import _connection
from triolet_protocol._crypto import KEY_BYTES, KeyPair, raw_key

AT_ONCE = 8
"""Agreements that the compiled code makes in the time of two or three."""
_FEW = 3
"""Fewer than this are faster one at a time."""
_NO_KEY = bytes(KEY_BYTES)
"""Stands for a text that is no key: with it nobody agrees on anything."""


class AgreedKeys(KeyPair):
    """Our half, and the key that came of it with one client."""

    __slots__ = ("_key",)

    def __init__(self, pair: KeyPair, key: bytes) -> None:
        self._secret, self._private, self.public = pair._secret, pair._private, pair.public
        self._key = key

    def aes_key(self, peer_key: str) -> bytes:
        """Return the key that was agreed on."""
        return self._key


def agree(pair: KeyPair, client_keys: Sequence[str]) -> list[KeyPair]:
    """Return what is to be given to `Connection.accept` for each of several clients.

    That is `pair` itself, and the agreement is made then, for keys that are unusable, and wherever one at a time is
    faster: for a few, in Python, and on processors without AVX-512 IFMA.
    """
    more = len(client_keys) % AT_ONCE
    count = len(client_keys) - more if more < _FEW else len(client_keys)
    agreed: list[KeyPair] = [pair] * len(client_keys)
    if count:
        found = _connection.hot.aes_keys(pair._secret, [_raw(key) for key in client_keys[:count]])
        for number, key in enumerate(found or ()):
            if key:
                agreed[number] = AgreedKeys(pair, key)
    return agreed


def _raw(client_key: str) -> bytes:
    try:
        raw = raw_key(client_key)
    except ValueError:
        return _NO_KEY
    return raw if len(raw) == KEY_BYTES else _NO_KEY
