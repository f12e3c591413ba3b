"""Denylists and allowlists. http-api.md, sections 5.6 and 5.7."""

from pathlib import Path

import pytest

from tests.integration.api.support import GROUP, OK, api_in
from tests.wkclient import client
from triolet_core import ReasonCode

QUERY = "channel_id=g&channel_type=2"


@pytest.mark.parametrize("name", ["blacklist", "whitelist"])
async def test_a_list_is_changed_and_read(tmp_path: Path, name: str) -> None:
    """POST /channel/{blacklist,whitelist}_{add,set,remove,remove_all}; GET: objects, or uids if asked for."""
    async with api_in(tmp_path) as api:
        path, uids = f"/channel/{name}", f"/channel/{name}?{QUERY}&format=uids"
        assert await api.get(f"{path}?{QUERY}") == []
        assert await api.post(f"{path}_add", {**GROUP, "uids": ["y", "x", "", "x"]}) == OK
        assert await api.get(uids) == ["x", "y"]
        assert await api.post(f"{path}_remove", {**GROUP, "uids": ["x", "nobody"]}) == OK
        [row] = await api.get(f"{path}?{QUERY}")
        assert api.shown({**row, "id": 0}) == {"id": 0, "uid": "y", "created_at": "T", "updated_at": "T"}
        assert row["id"] > 0
        assert await api.post(f"{path}_set", {**GROUP, "uids": ["b", "a", "c"]}) == OK
        assert await api.get(uids) == ["a", "b", "c"]
        assert await api.get(f"{uids}&limit=1&offset=1") == ["b"]
        assert await api.post(f"{path}_set", {**GROUP, "uids": []}) == OK
        assert await api.get(uids) == []
        await api.post(f"{path}_add", {**GROUP, "uids": ["a"]})
        assert await api.post(f"{path}_remove_all", GROUP) == OK
        assert await api.get(uids) == []


@pytest.mark.parametrize("name", ["blacklist", "whitelist"])
async def test_what_is_wrong_with_a_list(tmp_path: Path, name: str) -> None:
    async with api_in(tmp_path) as api:
        path = f"/channel/{name}"
        for call in ("_add", "_remove", "_remove_all"):
            assert await api.post(path + call, {"channel_type": 2, "uids": ["a"]}) == (400, "channel_id不能为空！")
            assert await api.post(path + call, {"channel_id": "g", "uids": ["a"]}) == (400, "频道类型不能为0！")
        for call in ("_add", "_remove"):
            for uids in ([], [""], [" "], None):
                assert await api.post(path + call, {**GROUP, "uids": uids}) == (400, "uids不能为空！")
        assert await api.post(f"{path}_set", {"channel_type": 2}) == (400, "频道ID不能为空！")
        assert await api.post(f"{path}_set", {"channel_id": "g"}) == (400, "频道类型不能为0！")
        for call in ("_add", "_set", "_remove", "_remove_all"):
            refused = await api.post(path + call, {"channel_id": "g@", "channel_type": 2, "uids": ["a"]})
            assert refused == (400, "频道ID不能包含特殊字符！")
        assert await api.get(f"{path}?channel_type=2") == (400, "channel_id不能为空！")
        assert await api.get(f"{path}?channel_id=g") == (400, "频道类型不能为0！")


async def test_the_lists_decide_who_may_write(tmp_path: Path) -> None:
    """Reason 4 for who is denied, 13 for who is not on an allowlist that has entries; a person's by his uid."""
    async with api_in(tmp_path) as api, client(api.server) as ann:
        await ann.connect("ann")
        await api.post("/channel", {**GROUP, "subscribers": ["ann", "bob"]})

        async def reasons() -> list[int]:
            return [(await ann.send(to, channel_type=kind)).reason_code for to, kind in (("g", 2), ("bob", 1))]

        person = {"channel_id": "bob", "channel_type": 1}
        assert await reasons() == [ReasonCode.SUCCESS, ReasonCode.SUCCESS]
        for target in (GROUP, person):
            await api.post("/channel/blacklist_add", {**target, "uids": ["ann"]})
        assert await reasons() == [ReasonCode.IN_BLACKLIST, ReasonCode.IN_BLACKLIST]
        for target in (GROUP, person):
            await api.post("/channel/blacklist_remove", {**target, "uids": ["ann"]})
            await api.post("/channel/whitelist_add", {**target, "uids": ["bob"]})
        assert await reasons() == [ReasonCode.NOT_IN_WHITELIST, ReasonCode.SUCCESS]
        await api.post("/channel/whitelist_add", {**GROUP, "uids": ["ann"]})
        assert await reasons() == [ReasonCode.SUCCESS, ReasonCode.SUCCESS]


async def test_who_is_denied_loses_the_conversation_until_forgiven(tmp_path: Path) -> None:
    async with api_in(tmp_path) as api:
        await api.post("/channel", {**GROUP, "subscribers": ["ann", "bob"]})
        await api.send("g", 2)
        await api.post("/channel/blacklist_add", {**GROUP, "uids": ["bob"]})
        assert await api.post("/conversation/sync", {"uid": "bob"}) == []
        await api.post("/channel/blacklist_remove", {**GROUP, "uids": ["bob"]})
        assert [row["channel_id"] for row in await api.post("/conversation/sync", {"uid": "bob"})] == ["g"]
