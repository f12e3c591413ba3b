"""Who may call what. config.md, section 3; http-api.md, section 8.9; http-api-errors.md, section 5."""

import base64
import hashlib
import os
import re
import time
from pathlib import Path
from typing import Any

import jwt
import pytest

from tests.integration.api.conftest import Shared
from tests.integration.api.support import GROUP, JSON, OK, Api, api_in, message
from triolet_api._users import hash_password
from triolet_core import ConfigError, PluginError

SECRET = "0123456789abcdef" * 4
USERS = ("root:pw:*", "reader:pw:[*:r]", "mover:pw:[slotMigrate:w,cluster:r]")
MOVE = {"migrate_from": 1001, "migrate_to": 2}
FORBIDDEN = {"msg": "没有权限", "status": 403, "code": "forbidden"}


def claims(**more: Any) -> dict[str, Any]:
    known = {"iss": "triolet", "iat": int(time.time()), "exp": int(time.time()) + 86_400, "username": "root", **more}
    return {name: value for name, value in known.items() if value is not None}


def token(algorithm: str = "HS256", secret: str = SECRET, **more: Any) -> str:
    return jwt.encode(claims(**more), "" if algorithm == "none" else secret, algorithm=algorithm)


async def status_of(api: Api, method: str, path: str, body: Any = None, **headers: str) -> int:
    return (await api.ask(method, path, body, **headers)).status_code


async def login(api: Api, name: str, password: str = "pw") -> dict[str, str]:
    answer = await api.post("/manager/login", {"username": name, "password": password})
    return {"Authorization": f"Bearer {answer['token']}"}


async def test_the_manager_token_is_asked_for_everywhere_but_where_it_must_not_be(tmp_path: Path) -> None:
    """Header `token`, or as Bearer; 401 has no body, at the administrator's endpoints it says why."""
    async with api_in(tmp_path, token="secret") as api:
        for free in ("/health", "/healthz", "/readyz", "/docs/health", "/openapi.json"):
            assert await status_of(api, "GET", free) == 200
        assert await api.post("/manager/login", {"username": "a", "password": "b"}) == (400, "用户名或密码错误")
        right: tuple[dict[str, str], ...] = ({"token": "secret"}, {"Authorization": "Bearer secret"})
        wrong: tuple[dict[str, str], ...] = ({}, {"token": "wrong"}, {"token": ""}, {"Authorization": "Bearer wrong"})
        for method, path, body in (
            ("GET", "/user/systemuids", None),
            ("POST", "/message/send", message("g", 2)),
            ("POST", "/conversation/sync", {"uid": "a"}),
            ("GET", "/connz", None),
            ("GET", "/metrics", None),
        ):
            for headers in wrong:
                answer = await api.ask(method, path, body, **headers)
                is_admin = path in ("/connz", "/metrics")
                assert (answer.status_code, bool(answer.content)) == (401, is_admin), (path, headers)
                assert answer.headers["access-control-allow-origin"] == "*"
            for headers in right:
                assert await status_of(api, method, path, body, **headers) == 200
        assert await status_of(api, "GET", "/user/systemuids?Authorization=Bearer%20secret") == 200
        assert (await api.ask("GET", "/connz")).json() == {"error": "Authorization header is required"}
        assert (await api.get("/connz", token="secret"))["total"] == 0
        assert await api.post("/cluster/slots/1/election", {}, token="secret") == OK


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ("", "Authorization header is required"),
        ("Bearer", "Invalid token"),
        ("Bearer garbage", "token is malformed: DecodeError"),
        ("Bearer a.b.c", "token is malformed: DecodeError"),
        (f"Bearer {token(secret='f' * 64)}", "token signature is invalid: signature is invalid"),
        (f"Bearer {token(exp=1)}", "token has invalid claims: token is expired"),
        (f"Bearer {token(exp=None)}", "token is malformed: MissingRequiredClaimError"),
        (f"Bearer {token(username=None)}", "token is malformed: MissingRequiredClaimError"),
        (f"Bearer {token(username='')}", "Invalid jwt token, username is empty"),
        (f"Bearer {token(username='removed')}", "unknown user"),
        (f"Bearer {token(username=['root'])}", "unknown user"),
        (f"Bearer {token('none')}", "token is malformed: InvalidAlgorithmError"),
        (f"Bearer {token('HS512')}", "token is malformed: InvalidAlgorithmError"),
        (f"bearer {token()}", "token is malformed: DecodeError"),
    ],
    ids=lambda value: value[:12],
)
def test_a_login_token_that_is_none(guarded: Shared, given: str, text: str) -> None:
    """HS256 only, `exp` and `username` needed, and the user has to exist still."""
    answer = guarded.http.get("/connz", headers={"Authorization": given} if given else {})
    assert (answer.status_code, answer.json()) == (401, {"error": text})
    assert answer.headers["content-type"] == JSON


def test_a_login_token_that_is_one(guarded: Shared) -> None:
    for value in (f"Bearer {token()}", token()):
        assert guarded.http.get("/connz", headers={"Authorization": value}).status_code == 200
        assert guarded.http.get("/connz", params={"Authorization": value}).status_code == 200


async def test_users_have_the_rights_they_are_given(tmp_path: Path) -> None:
    """A read-only user may not write (HTTP 400, status 403); a right names a resource and actions."""
    async with api_in(tmp_path, users=USERS, jwt_secret=SECRET) as api:
        root, reader, mover = [await login(api, name) for name in ("root", "reader", "mover")]
        move, election = "/cluster/slots/1/migrate", "/cluster/slots/1/election"
        for headers, path, expected in (
            (root, move, (400, "node not found")),
            (mover, move, (400, "node not found")),
            (reader, move, (400, "没有权限")),
            (root, election, OK),
            (mover, election, (400, "没有权限")),
        ):
            assert await api.post(path, MOVE, **headers) == expected
        assert (await api.ask("POST", move, MOVE, **reader)).json() == FORBIDDEN
        for headers, path, status in (
            (reader, "/connz", 200),
            (reader, "/metrics", 200),
            (mover, "/cluster/nodes", 200),
            (mover, "/metrics", 400),
            ({}, "/cluster/nodes", 401),
        ):
            assert await status_of(api, "GET", path, **headers) == status, path
        before = api.server.broker.statistics().commits_total
        for path, body in (
            ("/message/send", message("g", 2)),
            ("/channel", GROUP),
            ("/user/token", {"uid": "a", "token": "t"}),
            ("/plugin/bind", {"plugin_no": "p", "uid": "a"}),
            ("/system/ip/blacklist_add", {"ips": ["192.0.2.1"]}),
        ):
            assert (await api.ask("POST", path, body, **reader)).json() == FORBIDDEN
        assert api.server.broker.statistics().commits_total == before
        assert await api.post("/channel/messagesync", {**GROUP, "login_uid": "a"}, **reader)


async def test_users_alone_guard_what_is_the_administrators_on_loopback(tmp_path: Path) -> None:
    """A backend on the same machine goes on without credentials; from outside everything asks for them."""
    async with api_in(tmp_path, users=USERS, jwt_secret=SECRET) as api:
        assert await status_of(api, "POST", "/message/send", message("g", 2)) == 200
        assert await status_of(api, "POST", "/conn/kick", {"conn_id": 1}) == 401
    async with api_in(tmp_path, users=USERS, jwt_secret=SECRET, address="0.0.0.0:0") as api:
        assert await status_of(api, "POST", "/message/send", message("g", 2)) == 401
        assert await status_of(api, "GET", "/health") == 200
        root = await login(api, "root")
        assert await status_of(api, "POST", "/message/send", message("g", 2), **root) == 200


async def test_a_login(tmp_path: Path) -> None:
    """POST /manager/login: `exp` and `expire`, permissions in letters."""
    async with api_in(tmp_path, users=USERS, jwt_secret=SECRET, jwt_expire=3600) as api:
        answer = await api.post("/manager/login", {"username": "mover", "password": "pw"})
        read = jwt.decode(answer["token"], SECRET, algorithms=["HS256"])
        assert read == {"iss": "triolet", "iat": read["iat"], "exp": read["iat"] + 3600, "username": "mover"}
        assert abs(read["iat"] - time.time()) < 60
        rights = "slotMigrate:w,cluster:r"
        assert answer == {
            "username": "mover",
            "token": answer["token"],
            "exp": read["exp"],
            "expire": read["exp"],
            "permissions": rights,
            "user": {"username": "mover", "permissions": rights},
        }
        root = await api.post("/manager/login", {"username": "root", "password": "pw"})
        assert root["permissions"] == "*:*"
        assert await api.post("/manager/login", {"password": "pw"}) == (400, "用户名不能为空")
        assert await api.post("/manager/login", {"username": "root"}) == (400, "密码不能为空")


async def test_after_five_wrong_passwords_an_address_waits(tmp_path: Path) -> None:
    async with api_in(tmp_path, users=USERS, jwt_secret=SECRET, trusted_proxies=("127.0.0.1",)) as api:

        async def tried(name: str, password: str, address: str = "192.0.2.1") -> Any:
            body = {"username": name, "password": password}
            return await api.post("/manager/login", body, **{"X-Forwarded-For": address})

        await tried("root", "wrong")
        assert (await tried("root", "pw"))["username"] == "root"
        for name in ("root", "nobody", "reader", "root", "root"):
            assert await tried(name, "wrong") == (400, "用户名或密码错误")
        assert await tried("root", "pw") == (429, "登录失败次数过多")
        assert (await tried("root", "pw", "192.0.2.2"))["username"] == "root"


async def test_a_password_may_be_a_hash(tmp_path: Path) -> None:
    hashed = hash_password("p:w", os.urandom(16))
    assert re.fullmatch(r"scrypt\$16384\$8\$1\$[\w+/=]+\$[\w+/=]+", hashed)
    async with api_in(tmp_path, users=(f"root:{hashed}:*",), jwt_secret=SECRET) as api:
        assert await api.post("/manager/login", {"username": "root", "password": hashed}) == (400, "用户名或密码错误")
        assert await status_of(api, "GET", "/connz", **await login(api, "root", "p:w")) == 200


async def test_the_super_token_may_everything(tmp_path: Path) -> None:
    """Header `token` or Bearer; it guards everything like a managerToken."""
    async with api_in(tmp_path, super_token="super", users=USERS, jwt_secret=SECRET) as api:
        assert await status_of(api, "GET", "/user/systemuids") == 401
        for headers in ({"token": "super"}, {"Authorization": "Bearer super"}):
            assert await status_of(api, "GET", "/user/systemuids", **headers) == 200
            assert await api.post("/cluster/slots/1/election", {}, **headers) == OK
        assert await status_of(api, "GET", "/user/systemuids", **await login(api, "reader")) == 200


@pytest.mark.parametrize("off", [{"auth_on": False}, {"auth_kind": "none"}])
async def test_where_auth_is_off_nobody_is_asked(tmp_path: Path, off: dict[str, Any]) -> None:
    """On loopback only, and never instead of a managerToken."""
    async with api_in(tmp_path, users=USERS, jwt_secret=SECRET, **off) as api:
        assert await status_of(api, "GET", "/connz") == 200
        assert await api.post("/cluster/slots/1/election", {}) == OK
        assert await api.post("/cluster/slots/1/election", {}, **await login(api, "reader")) == OK
    async with api_in(tmp_path, users=USERS, jwt_secret=SECRET, address="0.0.0.0:0", **off) as api:
        assert await status_of(api, "GET", "/connz") == 401
        refused = await api.post("/cluster/slots/1/election", {}, **await login(api, "reader"))
        assert refused == (400, "没有权限")
    async with api_in(tmp_path, token="secret", **off) as api:
        assert await status_of(api, "GET", "/connz") == 401


async def test_an_open_api_is_not_shown_to_others(tmp_path: Path) -> None:
    with pytest.raises(PluginError) as caught:
        async with api_in(tmp_path, address="0.0.0.0:0"):
            pass
    assert isinstance(caught.value.__cause__, ConfigError)
    assert "Set managerToken" in str(caught.value.__cause__)
    async with api_in(tmp_path, address="0.0.0.0:0", allow_open=True) as api:
        assert await status_of(api, "GET", "/connz") == 200


async def test_the_key_of_login_tokens_is_made_once_and_kept_from_others(tmp_path: Path) -> None:
    async with api_in(tmp_path, users=USERS) as api:
        root = await login(api, "root")
    path = tmp_path / "jwt.secret"
    assert (path.stat().st_mode & 0o777, len(path.read_text())) == (0o600, 64)
    async with api_in(tmp_path, users=USERS) as api:
        assert await status_of(api, "GET", "/connz", **root) == 200


async def test_the_key_that_everybody_knows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PluginError) as caught:
        async with api_in(tmp_path, users=USERS, jwt_secret="secret_wukongim"):
            pass
    assert "jwt.secret" in str(caught.value.__cause__)


def test_a_stored_hash_is_scrypt() -> None:
    """What `hash_password` writes can be checked with the standard library alone."""
    salt = bytes(16)
    *_, shown = hash_password("pw", salt).split("$")
    digest = hashlib.scrypt(b"pw", salt=salt, n=1 << 14, r=8, p=1, dklen=32)
    assert shown == base64.b64encode(digest).decode()
