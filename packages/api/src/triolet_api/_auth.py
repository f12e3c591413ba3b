"""Who calls, and what he may. Source: config.md, section 3; http-api-errors.md, section 5.

Credentials are the managerToken, the super token, or a login token (JWT, HS256, with `exp` and `username`, whose user
is looked up). Once there are any, the administrator's endpoints ask for them; all others do so as soon as there is a
managerToken or a super token, or the listener is reachable from outside.
"""

import hmac
import importlib
import os
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cachetools
import trio

from triolet_api._call import Caller, Route
from triolet_api._config import ApiConfig
from triolet_api._errors import ApiError, forbidden
from triolet_api._users import EVERYTHING, User, parse_user
from triolet_core import ConfigError, ServerConfig

_BEARER = "Bearer "
_ALGORITHM = "HS256"
KNOWN_SECRET = "secret_wukongim"  # noqa: S105  # the reference's default: whoever knows it can make tokens
SECRET_FILE = "jwt.secret"  # noqa: S105  # a file name
MAX_FAILED_LOGINS = 5
FAILED_LOGINS_S = 60.0
_LOGIN_ADDRESSES = 10_000
_CHECKED_TOKENS = 1_000


class Unauthorized(Exception):
    """No credentials, or wrong ones; `text` says which."""

    def __init__(self, text: str) -> None:
        self.text = text
        super().__init__(text)


class Authority:
    """Decides about callers."""

    def __init__(self, config: ApiConfig, server: ServerConfig, secret: str, *, is_exposed: bool) -> None:
        self._config = config
        self._secret = secret
        self._tokens = {
            token: name
            for token, name in ((server.auth.manager_token, server.auth.manager_uid), (config.super_token, "super"))
            if token.strip()
        }
        self.users = {user.name: user for user in map(parse_user, config.users)}
        if self.users:
            _jwt()
        self._is_off = (not config.auth_on or config.auth_kind == "none") and not is_exposed
        self._asks_everybody = bool(self._tokens) or (bool(self.users) and is_exposed)
        self._asks_administrators = bool(self._tokens) or (bool(self.users) and not self._is_off)
        self._hashing = trio.CapacityLimiter(1)
        self._checked: cachetools.LRUCache[str, tuple[User, int]] = cachetools.LRUCache(_CHECKED_TOKENS)
        self._nameless: dict[str, Caller] = {}
        self._failures: cachetools.TTLCache[str, int] = cachetools.TTLCache(_LOGIN_ADDRESSES, FAILED_LOGINS_S)

    def identify(self, route: Route, headers: Mapping[str, str], query: Mapping[str, str], address: str) -> Caller:
        """Return who calls.

        Raises:
            Unauthorized: Credentials are needed and missing or wrong.
        """
        asks = self._asks_administrators if route.is_admin else self._asks_everybody
        if not asks and "authorization" not in headers and "token" not in headers and not query:
            return self._anybody(address)
        try:
            name, rights = self._credentials(headers, query)
        except Unauthorized:
            if asks and not route.is_free:
                raise
            return self._anybody(address)
        return Caller(name=name, address=address, rights=EVERYTHING if self._is_off else rights)

    def _anybody(self, address: str) -> Caller:
        """Return a caller who need not say who he is; the same one for the same address."""
        caller = self._nameless.get(address)
        if caller is None:
            if len(self._nameless) >= _LOGIN_ADDRESSES:
                self._nameless.clear()
            caller = self._nameless[address] = Caller(address=address, rights=EVERYTHING)
        return caller

    def _credentials(self, headers: Mapping[str, str], query: Mapping[str, str]) -> tuple[str, Mapping[str, str]]:
        given = headers.get("authorization", "") or query.get("Authorization", "")
        bearer = given.removeprefix(_BEARER).strip()
        for token, name in self._tokens.items():
            if _same(headers.get("token", ""), token) or _same(bearer, token):
                return name, EVERYTHING
        if not bearer or bearer == _BEARER.strip():
            raise Unauthorized("Invalid token" if given else "Authorization header is required")
        user = self._user_of(bearer)
        return user.name, user.rights

    def _user_of(self, token: str) -> User:
        """Return whose login token it is; one that was checked before is only looked up until it expires."""
        known = self._checked.get(token)
        if known is not None and known[1] > time.time():
            return known[0]
        jwt = _jwt()
        try:
            claims = jwt.decode(token, self._secret, algorithms=[_ALGORITHM], options={"require": ["exp", "username"]})
        except jwt.ExpiredSignatureError:
            raise Unauthorized("token has invalid claims: token is expired") from None
        except jwt.InvalidSignatureError:
            raise Unauthorized("token signature is invalid: signature is invalid") from None
        except jwt.InvalidTokenError as exc:
            raise Unauthorized(f"token is malformed: {type(exc).__name__}") from None
        user = self.users.get(str(claims["username"]))
        if user is None:
            raise Unauthorized("Invalid jwt token, username is empty" if not claims["username"] else "unknown user")
        self._checked[token] = (user, int(claims["exp"]))
        return user

    def check(self, route: Route, caller: Caller) -> None:
        """Refuse a caller that has not the right that an endpoint asks for."""
        if caller.rights is not EVERYTHING and not route.is_free and not caller.may(route.resource, route.action):
            raise forbidden()

    async def login(self, name: str, password: str, address: str, now: float) -> tuple[User, str, int]:
        """Return the user, his token, and the second it expires.

        Raises:
            ApiError: Wrong name or password, or too many wrong ones from this address.
        """
        if self._failures.get(address, 0) >= MAX_FAILED_LOGINS:
            raise ApiError("登录失败次数过多", status=429, code="too_many_failures")
        self._failures[address] = self._failures.get(address, 0) + 1  # those under way at the same time count too
        user = self.users.get(name)
        # Whoever is not known is checked all the same, so that the time taken does not tell who is.
        checked = user or next(iter(self.users.values()), User(name, secrets.token_hex(16), {}))
        is_right = await trio.to_thread.run_sync(checked.knows, password, limiter=self._hashing)
        if user is None or not is_right:
            raise ApiError("用户名或密码错误", code="bad_login")
        self._failures.pop(address, None)
        return user, *self._token(user, now)

    def _token(self, user: User, now: float) -> tuple[str, int]:
        expires = int(now + self._config.jwt_expire)
        claims: dict[str, Any] = {
            "iss": self._config.jwt_issuer,
            "iat": int(now),
            "exp": expires,
            "username": user.name,
        }
        return _jwt().encode(claims, self._secret, algorithm=_ALGORITHM), expires


def _jwt() -> Any:
    """Return PyJWT, which takes long to load: only where there are users who log in, or somebody shows a token."""
    return importlib.import_module("jwt")


def secret_of(config: ApiConfig, server: ServerConfig) -> str:
    """Return the key of the login tokens: the configured one, or one that is made and kept in rootDir.

    Raises:
        ConfigError: It is the reference's well-known default.
    """
    if config.jwt_secret == KNOWN_SECRET and server.node.mode == "release":
        raise ConfigError("jwt.secret", "is the default that everybody knows; choose another, or leave it out")
    if config.jwt_secret or not config.users:
        return config.jwt_secret or secrets.token_hex(32)
    path = server.node.root_path / SECRET_FILE
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        return _new_secret(path)


def _new_secret(path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    made = secrets.token_hex(32)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(made)
    return made


def _same(given: str, expected: str) -> bool:
    return bool(given) and hmac.compare_digest(given.encode(), expected.encode())
