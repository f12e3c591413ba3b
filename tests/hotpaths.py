"""Both implementations of what runs per message; a module that imports `hot_path` runs once with each."""

import importlib
from collections.abc import Iterator
from typing import Any

import pytest

from triolet_core.speedups import COMPILED, INTERFACE
from triolet_protocol import _connection, _hot, _websocket


def compiled() -> Any:
    """Return the compiled module; skips the test, visibly, where it is not built."""
    try:
        module = importlib.import_module(COMPILED)
    except ImportError:
        pytest.skip("triolet-speedups is not built")
    assert module.INTERFACE == INTERFACE, "triolet-speedups is to be built anew"
    return module


@pytest.fixture(scope="module", autouse=True, params=["python", "compiled"])
def hot_path(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Let connections use one implementation."""
    hot = _hot if request.param == "python" else compiled()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_connection, "hot", hot)
        patch.setattr(_websocket, "hot", hot)
        patch.setattr(_connection, "_NO_PEER", hot.Peer(5))
        yield hot
