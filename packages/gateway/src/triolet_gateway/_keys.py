"""What the server brings to key agreements: its half, and the salt."""

import os
import string

from triolet_protocol import KeyPair

SALT_LENGTH = 16
_RANDOM_BYTES = 256
"""Enough for a dozen salts: the system is asked for as many bytes in the time that it takes for one."""
_LETTERS = (string.ascii_letters + string.digits).encode()
_FAIR = 256 - 256 % len(_LETTERS)
"""Random bytes from this on are left out: they would make some letters likelier."""
_LETTER_OF = bytes(_LETTERS[byte % len(_LETTERS)] for byte in range(256))
_UNFAIR = bytes(range(_FAIR, 256))


class Keys:
    """Our half of key agreements.

    Making one takes as long as the rest of the agreement, so logins of the same second share it; then it is dropped.
    Each connection still has keys of its own, since each client brings a fresh half.
    """

    def __init__(self) -> None:
        self._pair: KeyPair | None = KeyPair(os.urandom(32))
        """The first takes 11 ms, since OpenSSL is loaded for it: before there is a client, and not when one waits."""
        self._letters = b""
        """Random ones that nobody has got yet."""

    def pair(self) -> KeyPair:
        """Return the half of this second."""
        if self._pair is None:
            self._pair = KeyPair(os.urandom(32))
        return self._pair

    def forget(self) -> None:
        """Drop it: the second is over."""
        self._pair = None

    def salt(self) -> bytes:
        """Return 16 random letters and digits."""
        while len(self._letters) < SALT_LENGTH:
            self._letters += os.urandom(_RANDOM_BYTES).translate(_LETTER_OF, _UNFAIR)
        salt, self._letters = self._letters[:SALT_LENGTH], self._letters[SALT_LENGTH:]
        return salt
