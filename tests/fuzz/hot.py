"""The hot paths that are there: the Python one first, the compiled one if it is built and not switched off."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from triolet_protocol import _compiled, _connection, _hot

PATHS: list[Any] = [path for path in (_hot, _compiled.find(os.environ)) if path is not None]


@contextmanager
def using(path: Any) -> Iterator[None]:
    """Let connections use one of them."""
    before = _connection.hot, _connection._NO_PEER
    _connection.hot, _connection._NO_PEER = path, path.Peer(5)
    try:
        yield
    finally:
        _connection.hot, _connection._NO_PEER = before
