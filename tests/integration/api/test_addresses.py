"""Addresses that are turned away. http-api.md, section 4.8."""

from pathlib import Path

import trio

from tests.integration.api.support import OK, api_in
from tests.wkclient import client


async def test_the_list_is_changed_and_read(tmp_path: Path) -> None:
    async with api_in(tmp_path) as api:
        assert await api.get("/system/ip/blacklist") == []
        body = {"ips": ["192.0.2.2", "192.0.2.1", "2001:db8:0::1", "192.0.2.2"]}
        assert await api.post("/system/ip/blacklist_add", body) == OK
        assert await api.get("/system/ip/blacklist") == ["192.0.2.1", "192.0.2.2", "2001:db8::1"]
        assert await api.post("/system/ip/blacklist_remove", {"ips": ["2001:db8::1", "192.0.2.9"]}) == OK
        for path in ("/system/ip/blacklist_add", "/system/ip/blacklist_remove"):
            assert await api.post(path, {"ips": []}) == (400, "ip列表不能为空！")
            assert await api.post(path, {"ips": [" "]}) == (400, "ip列表不能为空！")
            assert await api.post(path, {"ips": ["192.0.2.5", "no address"]}) == (400, "ips: IPv4 or IPv6 addresses")
    async with api_in(tmp_path) as api:
        assert await api.get("/system/ip/blacklist") == ["192.0.2.1", "192.0.2.2"]


async def test_whoever_is_on_it_gets_403_and_no_connection(tmp_path: Path) -> None:
    """Also for clients; open connections stay; a forwarded address counts only from a trusted proxy."""
    async with api_in(tmp_path) as api:
        async with client(api.server) as early:
            await early.connect("early")
            await api.post("/system/ip/blacklist_add", {"ips": ["127.0.0.1"]})
            for path in ("/user/systemuids", "/health"):
                answer = await api.ask("GET", path, **{"X-Forwarded-For": "192.0.2.7"})
                assert (answer.status_code, answer.content) == (403, b"")
                assert answer.headers["access-control-allow-origin"] == "*"
            await early.ping()
        async with client(api.server) as late:
            with trio.move_on_after(5):
                await late.wait_closed()
            assert late.is_closed


async def test_a_trusted_proxy_speaks_for_others(tmp_path: Path) -> None:
    """The last address that no trusted proxy is; what the caller himself wrote before it does not count."""
    async with api_in(tmp_path, trusted_proxies=("127.0.0.1", "192.0.2.50")) as api:
        await api.post("/system/ip/blacklist_add", {"ips": ["192.0.2.7"]})
        for forwarded, status in (
            ("192.0.2.7", 403),
            ("192.0.2.8, 192.0.2.7", 403),
            ("192.0.2.7, 192.0.2.8", 200),
            ("192.0.2.7, 192.0.2.50", 403),
            ("no address", 200),
            ("", 200),
        ):
            answer = await api.ask("GET", "/user/systemuids", **{"X-Forwarded-For": forwarded})
            assert answer.status_code == status, forwarded
