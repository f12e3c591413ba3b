"""How much one caller may ask for, and what is noted of his writes."""

import base64
import json
import stat
from pathlib import Path
from typing import Any

import pytest
import trio.testing

from tests.integration.api.support import GROUP, HELLO, OK, api_in, message
from triolet_api._errors import ApiError
from triolet_api._limits import RateLimit


async def test_a_caller_who_asks_too_often_gets_429(tmp_path: Path) -> None:
    """api.ratePerSecond, per user or address; OPTIONS and others are not affected."""
    async with api_in(tmp_path, rate_per_second=1, trusted_proxies=("127.0.0.1",)) as api:

        async def asked(address: str) -> list[Any]:
            headers = {"X-Forwarded-For": address}
            return [await api.ask("GET", "/user/systemuids", **headers) for _ in range(8)]

        answers = await asked("192.0.2.1")
        assert answers[0].status_code == 200
        refused = [answer for answer in answers if answer.status_code == 429]
        assert refused
        shown = refused[0].json()
        assert shown["msg"].startswith("rate limited: again in ")
        assert (shown["status"], shown["code"]) == (429, "rate_limited")
        assert (await api.ask("GET", "/user/systemuids", **{"X-Forwarded-For": "192.0.2.2"})).status_code == 200
        assert (await api.ask("OPTIONS", "/user/systemuids")).status_code == 204


async def test_what_was_used_comes_back_with_time(autojump_clock: trio.testing.MockClock) -> None:
    limit = RateLimit(2)
    for _ in range(3):
        limit.take("a")
        limit.take("a")
        with pytest.raises(ApiError) as caught:
            limit.take("a")
        assert (caught.value.status, "500 ms" in caught.value.message) == (429, True)
        limit.take("b")
        await trio.sleep(1)


async def test_every_write_is_noted(tmp_path: Path) -> None:
    """Who, what, from where, with which outcome, one line of JSON each; never a token, a payload or a password."""
    token, secret = "the-manager-token", base64.b64encode(b"secret payload").decode()
    settings: dict[str, Any] = {"token": token, "users": ("root:pass-word:*",), "jwt_secret": "k" * 64}
    async with api_in(tmp_path, **settings, trusted_proxies=("127.0.0.1",)) as api:
        as_manager = {"token": token, "X-Forwarded-For": "192.0.2.1"}
        login = await api.post("/manager/login", {"username": "root", "password": "pass-word"})
        as_root = {"Authorization": f"Bearer {login['token']}"}
        await api.post("/channel", GROUP, **as_manager)
        await api.post("/message/send", message("g", 2, payload=secret), **as_root)
        await api.post("/user/token", {"uid": "ann", "token": "user-token"}, **as_manager)
        await api.post("/message/send", message("g", 2, payload=""), **as_manager)
        await api.ask("POST", "/channel/delete", GROUP)
        await api.post("/message/send", b"{", **as_manager)
        await api.post("/channel", '{"channel_id":"\\ud800","channel_type":[]}', **as_manager)
        await api.post("/channel/messagesync", {**GROUP, "login_uid": "a"}, **as_manager)
        await api.get("/user/systemuids", **as_manager)
    path = tmp_path / "audit.log"
    text = path.read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert all(line.pop("at") > 1.7e9 for line in lines)
    root, manager, nobody = [
        {"who": who, "from": address}
        for who, address in (("root", "127.0.0.1"), ("____manager", "192.0.2.1"), ("", "127.0.0.1"))
    ]
    sending = {"what": "POST /message/send", "from_uid": "ann"}
    assert lines == [
        {**nobody, "what": "POST /manager/login", "status": 200, "username": "root"},
        {**manager, "what": "POST /channel", "status": 200, **GROUP},
        {**root, **sending, "status": 200, **GROUP},
        {**manager, "what": "POST /user/token", "status": 200, "uid": "ann"},
        {**manager, **sending, "status": 400, **GROUP},
        {**nobody, "what": "POST /channel/delete", "status": 401},
        {**manager, "what": "POST /message/send", "status": 400},
        {**manager, "what": "POST /channel", "status": 400, "channel_id": "?"},
    ]
    for hidden in (token, secret, HELLO, "user-token", "pass-word", login["token"]):
        assert hidden not in text
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_a_log_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    """The loss is counted."""
    async with api_in(tmp_path, audit_log="/proc/no/such/file") as api:
        assert await api.post("/channel", GROUP) == OK
        with trio.fail_after(10):
            while "triolet_api_audit_dropped 1.0" not in (await api.ask("GET", "/metrics")).text:
                await trio.lowlevel.checkpoint()
        assert await api.post("/channel", GROUP) == OK


async def test_no_log_where_none_is_wanted(tmp_path: Path) -> None:
    async with api_in(tmp_path, audit_log="") as api:
        await api.post("/channel", GROUP)
    assert not (tmp_path / "audit.log").exists()
