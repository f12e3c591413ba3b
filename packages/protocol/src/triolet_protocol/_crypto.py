"""Key agreement, payload encryption and message keys. Source: wire-protocol.md, section 4.

The AES key is 16 characters of a hex digest and the IV is the salt, the same for every message of a connection:
that is what the clients do. Treat it as obfuscation and use TLS where it matters.
"""

import binascii
from binascii import a2b_base64, b2a_base64
from hashlib import md5

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC

from triolet_protocol._errors import PayloadError, RemoteProtocolError
from triolet_protocol._numbers import ReasonCode

KEY_BYTES = 32
SALT_LENGTH = 16
_BLOCK = 16
_PADDING = [bytes((n,)) * n for n in range(_BLOCK + 1)]


class SessionKeys:
    """What both ends of one connection encrypt and sign with. Cipher contexts are made from one kept cipher."""

    __slots__ = ("_cipher",)

    def __init__(self, aes_key: bytes, aes_iv: bytes) -> None:
        self._cipher = Cipher(AES(aes_key), CBC(aes_iv))

    def encrypt(self, plain: bytes) -> bytes:
        """Return the base64 text of the padded, encrypted bytes."""
        encryptor = self._cipher.encryptor()
        return b2a_base64(encryptor.update(plain + _PADDING[_BLOCK - len(plain) % _BLOCK]), newline=False)

    def decrypt(self, text: bytes) -> bytes:
        """Return the plain bytes of an encrypted payload.

        Raises:
            PayloadError: It is not base64, not whole blocks, or not padded as PKCS7 demands.
        """
        try:
            data = a2b_base64(text, strict_mode=True)
        except binascii.Error:
            raise PayloadError("the payload is not base64") from None
        if not data or len(data) % _BLOCK or len(text) != (len(data) + 2) // 3 * 4:  # some versions take padding alone
            raise PayloadError("the payload is not whole blocks")
        plain = self._cipher.decryptor().update(data)
        padding = plain[-1]
        if not 1 <= padding <= _BLOCK or not plain.endswith(_PADDING[padding]):
            raise PayloadError("the payload is not padded as it should be")
        return plain[:-padding]

    def msg_key(self, sign: bytes) -> str:
        """Return the message key of a sign text: 32 hex digits."""
        encryptor = self._cipher.encryptor()
        data = encryptor.update(sign + _PADDING[_BLOCK - len(sign) % _BLOCK])
        return md5(b2a_base64(data, newline=False), usedforsecurity=False).hexdigest()


def raw_key(text: str) -> bytes:
    """Return the bytes of a public key, fewer than 32 if it is none.

    Raises:
        ValueError: The text is not base64.
    """
    return a2b_base64(text, strict_mode=True)[:KEY_BYTES]


class KeyPair:
    """Our half of a key agreement. Making one takes half of its time, so it is made once per connection."""

    __slots__ = ("_private", "_secret", "public")

    def __init__(self, private_key: bytes) -> None:
        """`private_key` is 32 random bytes."""
        self._secret = private_key
        self._private = X25519PrivateKey.from_private_bytes(private_key)
        self.public = b2a_base64(self._private.public_key().public_bytes_raw(), newline=False).decode()

    def aes_key(self, peer_key: str) -> bytes:
        """Return the AES key: 16 characters of the hex MD5 of the base64 of the shared secret.

        Args:
            peer_key: The peer's public key, base64; bytes beyond 32 are ignored.

        Raises:
            RemoteProtocolError: The peer's key is no key, or one that gives a shared secret of zeros.
        """
        try:
            shared = self._private.exchange(X25519PublicKey.from_public_bytes(raw_key(peer_key)))
        except ValueError:
            raise RemoteProtocolError(ReasonCode.AUTH_FAIL, "the key of the client is no usable X25519 key") from None
        return md5(b2a_base64(shared, newline=False), usedforsecurity=False).hexdigest()[:16].encode()
