"""Users of the API: `name:password:rights`, their passwords and rights. Source: config.md, section 3.3."""

import base64
import hashlib
import hmac
import re
from collections.abc import Mapping

import attrs

_HASHED = re.compile(r"scrypt\$(\d+)\$(\d+)\$(\d+)\$([A-Za-z0-9+/=]+)\$([A-Za-z0-9+/=]+)")
_ACTIONS = frozenset("rw*")
EVERYTHING: Mapping[str, str] = {"*": "*"}


@attrs.frozen
class User:
    """Somebody who may log in."""

    name: str
    password: str = attrs.field(repr=False)
    rights: Mapping[str, str]
    """Actions by resource."""

    def knows(self, password: str) -> bool:
        """Whether this is the password; takes as long for a wrong one."""
        hashed = _HASHED.fullmatch(self.password)
        if hashed is None:
            return hmac.compare_digest(password.encode(), self.password.encode())
        n, r, p = (int(hashed[number]) for number in (1, 2, 3))
        given = hashlib.scrypt(password.encode(), salt=base64.b64decode(hashed[4]), n=n, r=r, p=p, dklen=32)
        return hmac.compare_digest(given, base64.b64decode(hashed[5]))

    @property
    def permissions(self) -> str:
        """The rights in words: `resource:actions,…`."""
        return ",".join(f"{resource}:{actions}" for resource, actions in self.rights.items())


def parse_user(text: str) -> User:
    """Return the user that a setting describes.

    Raises:
        ValueError: It does not describe one; the text names no password.
    """
    name, colon, rest = text.partition(":")
    password, second, rights = rest.partition(":")
    if not (name.strip() and colon and second and password):
        raise ValueError("a user is name:password:* or name:password:[resource:actions,…]")
    if rights == "*":
        return User(name, password, EVERYTHING)
    if not (rights.startswith("[") and rights.endswith("]")):
        raise ValueError(f"the rights of {name} are neither * nor [resource:actions,…]")
    found: dict[str, str] = {}
    for item in filter(None, (each.strip() for each in rights[1:-1].split(","))):
        resource, _, actions = item.partition(":")
        if not resource or not actions or not set(actions) <= _ACTIONS:
            raise ValueError(f"a right of {name} is not resource:actions with r, w or *")
        found[resource] = actions
    return User(name, password, found)


def hash_password(password: str, salt: bytes) -> str:
    """Return what may stand in a user's setting in place of a password.

    Args:
        password: It.
        salt: 16 random bytes.
    """
    digest = hashlib.scrypt(password.encode(), salt=salt, n=1 << 14, r=8, p=1, dklen=32)
    shown = (base64.b64encode(each).decode() for each in (salt, digest))
    return "$".join(("scrypt", str(1 << 14), "8", "1", *shown))
