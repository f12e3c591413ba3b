"""One running server for tests that leave it as they found it."""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import attrs
import httpx
import pytest
import trio

import triolet_api
from tests.integration.api.support import config_of, told
from triolet_core import Server, ServerConfig, open_server
from triolet_core.config import RetentionConfig, Seconds

MAX_BODY_BYTES = 2 << 20


@attrs.frozen(eq=False)
class Shared:
    """A server in a thread of its own, and a client."""

    server: Server
    http: httpx.Client

    def ask(self, method: str, path: str, body: Any = None) -> httpx.Response:
        """Send a request; a body that is neither bytes nor text goes as JSON."""
        content = body if isinstance(body, (bytes, str)) or body is None else json.dumps(body)
        return self.http.request(method, path, content=content)

    def post(self, path: str, body: Any = None) -> Any:
        """Return what the answer says: its JSON with status 200, else (status, `msg`)."""
        return told(self.ask("POST", path, {} if body is None else body))

    def get(self, path: str) -> Any:
        """Return what the answer says, as `post`."""
        return told(self.ask("GET", path))

    def commits(self) -> int:
        """Return how many transactions there were."""
        return self.server.broker.statistics().commits_total


@contextmanager
def served(config: ServerConfig) -> Iterator[Shared]:
    """Run a server in a thread."""
    started, running = threading.Event(), []

    async def serve() -> None:
        async with open_server(config, plugins=[triolet_api.plugin]) as server:
            stop = trio.Event()
            running.append((server, stop, trio.lowlevel.current_trio_token()))
            started.set()
            await stop.wait()

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(trio.run, serve)
        assert started.wait(20), done.exception(0)
        server, stop, token = running[0]
        with httpx.Client(base_url=f"http://{server.broker.endpoints['http']}", timeout=20) as http:
            yield Shared(server, http)
        token.run_sync_soon(stop.set)
        done.result(20)


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    """A server with a small body limit and everything mounted."""
    core = ServerConfig(retention=RetentionConfig(interval=Seconds(86_400)))  # deletes nothing between two counts
    config = config_of(tmp_path_factory.mktemp("shared"), core=core, max_body_bytes=MAX_BODY_BYTES, ext_on=True)
    with served(config) as server:
        yield server


@pytest.fixture(scope="session")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    """A server with a user `root` and a known key of its login tokens."""
    config = config_of(tmp_path_factory.mktemp("guarded"), users=("root:pw:*",), jwt_secret="0123456789abcdef" * 4)
    with served(config) as server:
        yield server
