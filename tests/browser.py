"""A browser for tests: Chromium, driven over its DevTools protocol. Tests are skipped where there is none."""

import base64
import json
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from itertools import count
from pathlib import Path
from subprocess import DEVNULL, PIPE
from typing import Any

import pytest
import trio
import trio_websocket

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
_LISTENING = re.compile(rb"DevTools listening on (ws://\S+)")
_ARGUMENTS = (
    "--headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run --no-default-browser-check"
    " --disable-extensions --disable-background-networking --disable-component-update --disable-sync"
    " --remote-debugging-port=0 about:blank"
)
_WAIT = """new Promise((resolve) => {
  const look = () => { const found = (EXPRESSION); found ? resolve(found) : setTimeout(look, 10); };
  look();
})"""


class Tab:
    """One page. `complaints` collects what the browser's console holds against it."""

    def __init__(self, websocket: trio_websocket.WebSocketConnection) -> None:
        self._websocket = websocket
        self._session: str | None = None
        self._ids = count(1)
        self._answers: dict[int, Any] = {}
        self.complaints: list[str] = []

    async def call(self, method: str, **params: Any) -> Any:
        """Make a DevTools call; returns its result."""
        number = next(self._ids)
        session = {"sessionId": self._session} if self._session else {}
        await self._websocket.send_message(json.dumps({"id": number, "method": method, "params": params, **session}))
        while number not in self._answers:
            self._take(json.loads(await self._websocket.get_message()))
        answer = self._answers.pop(number)
        assert "error" not in answer, answer["error"]
        return answer["result"]

    def _take(self, message: Any) -> None:
        if "id" in message:
            self._answers[message["id"]] = message
        elif message["method"] == "Runtime.exceptionThrown":
            self.complaints.append(str(message["params"]["exceptionDetails"]))
        elif message["method"] == "Log.entryAdded" and message["params"]["entry"]["source"] in (
            "security",
            "javascript",
        ):
            self.complaints.append(message["params"]["entry"]["text"])

    async def attach(self) -> None:
        target = await self.call("Target.createTarget", url="about:blank")
        attached = await self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            await self.call(f"{domain}.enable")

    async def close_browser(self) -> None:
        self._session = None
        await self.call("Browser.close")

    async def resize(self, width: int, height: int) -> None:
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        await self.call("Emulation.setDeviceMetricsOverride", **metrics)

    async def go(self, url: str) -> None:
        await self.call("Page.navigate", url=url)

    async def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression; of a promise what it resolves to."""
        found = await self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    async def wait_for(self, expression: str) -> Any:
        """Return the value of an expression once it is true; a navigation meanwhile begins anew."""
        while True:
            try:
                return await self.evaluate(_WAIT.replace("EXPRESSION", expression))
            except AssertionError as exc:
                if not any(text in str(exc) for text in ("navigated", "context", "Context")):
                    raise

    async def wait_text(self, text: str, selector: str = "body") -> None:
        """Wait until an element shows a text."""
        wanted, where = json.dumps(text), json.dumps(selector)
        await self.wait_for(
            f"[...document.querySelectorAll({where})].some((each) => each.innerText.includes({wanted}))"
        )

    async def fill(self, selector: str, value: str) -> None:
        """Type into the field that a selector finds."""
        where = json.dumps(selector)
        await self.wait_for(f"document.querySelector({where}) !== null")
        await self.evaluate(f"document.querySelector({where}).focus()")
        await self.evaluate(f"document.querySelector({where}).select()")
        await self.call("Input.insertText", text=value)

    async def click(self, selector: str) -> None:
        """Click on the first element of a selector, once there is one."""
        where = json.dumps(selector)
        await self.wait_for(f"document.querySelector({where}) !== null")
        await self.evaluate(f"document.querySelector({where}).click()")

    async def press(self, label: str, within: str = "body") -> None:
        """Press the first visible button with a label, once it can be pressed."""
        found = (
            f"[...document.querySelectorAll({json.dumps(within + ' button')})]"
            f".find((each) => each.textContent === {json.dumps(label)} && each.checkVisibility() && !each.disabled)"
        )
        await self.wait_for(f"Boolean({found})")
        await self.evaluate(f"{found}.click()")

    async def screenshot(self, path: Path) -> None:
        shot = await self.call("Page.captureScreenshot", format="png")
        path.write_bytes(base64.b64decode(shot["data"]))


@asynccontextmanager
async def browser_tab(profile: Path) -> AsyncIterator[Tab]:
    """Run Chromium with a new profile, and open a page in it."""
    assert CHROMIUM is not None
    words = [CHROMIUM, *_ARGUMENTS.split(), f"--user-data-dir={profile}"]
    async with trio.open_nursery() as nursery:
        run = partial(trio.run_process, words, stdin=PIPE, stdout=DEVNULL, stderr=PIPE, check=False)
        process = await nursery.start(run)
        found = await _address(process.stderr)
        nursery.start_soon(_drain, process.stderr)
        async with trio_websocket.open_websocket_url(found, max_message_size=64 << 20) as websocket:
            tab = Tab(websocket)
            await tab.attach()
            yield tab
            await tab.close_browser()
        # The nursery waits for the process.


async def _address(stream: trio.abc.ReceiveStream) -> str:
    said = b""
    while (found := _LISTENING.search(said)) is None:
        more = await stream.receive_some()
        assert more, f"chromium ended: {said.decode(errors='replace')}"
        said += more
    return found[1].decode()


async def _drain(stream: trio.abc.ReceiveStream) -> None:
    """Take what the browser goes on to say, so that it never has to wait."""
    async for _ in stream:
        pass
