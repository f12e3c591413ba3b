"""Keys that are agreed on before anybody has decided about a login."""

import triolet_protocol as wire


class AgreedKeys(wire.KeyPair):
    """The outcome of a key agreement that was made before anybody decided about the login."""

    __slots__ = ("_key",)

    def __init__(self, pair: wire.KeyPair, client_key: str) -> None:
        self._private = pair._private
        self.public = pair.public
        self._key = pair.aes_key(client_key)

    def aes_key(self, peer_key: str) -> bytes:
        """Return the key that was agreed on."""
        return self._key
