"""The page at /docs in a browser: it shows the document, and calls nothing but this server."""

from pathlib import Path

import pytest
import trio

from tests.browser import browser_tab, needs_chromium
from tests.integration.api.support import HELLO, api_in

SEND = "#operations-Messages-post_message_send"


@needs_chromium
@pytest.mark.slow
async def test_an_endpoint_is_tried_out_on_the_page(tmp_path: Path) -> None:
    """With what the page offers to send; and what the browser loads is all from here."""
    async with api_in(tmp_path / "server") as api, browser_tab(tmp_path / "browser") as tab:
        with trio.fail_after(60):
            url = str(api.http.base_url)
            await tab.go(f"{url}/docs#/Messages/post_message_send")
            for button in (".try-out__btn", ".execute"):
                await tab.wait_for(f"Boolean(document.querySelector('{SEND} {button}'))")
                await tab.evaluate(f"document.querySelector('{SEND} {button}').click()")
            await tab.wait_text('"message_seq": 1', ".live-responses-table")
            groups = await tab.evaluate(
                "[...document.querySelectorAll('.opblock-tag')].map((each) => each.dataset.tag)"
            )
            assert groups[:3] == ["Users", "Channels", "Messages"]
            loaded = await tab.evaluate("performance.getEntriesByType('resource').map((each) => each.name)")
            assert {each.partition("/docs")[0] for each in loaded} >= {
                url,
                f"{url}/openapi.json",
                f"{url}/message/send",
            }
            assert [each for each in loaded if not each.startswith((f"{url}/", "data:"))] == []
            assert tab.complaints == []
            page = await api.post("/channel/messagesync", {"login_uid": "ann", "channel_id": "team", "channel_type": 2})
            assert [each["payload"] for each in page["messages"]] == [HELLO]


async def test_the_page_may_load_nothing_from_elsewhere(tmp_path: Path) -> None:
    async with api_in(tmp_path) as api:
        policy = (await api.http.get("/docs")).headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; ")
        assert "http" not in policy
        assert "validatorUrl: null" in (await api.http.get("/docs/assets/start.js")).text
