"""Tools for tests: a gateway whose clients are in the same process and need no socket."""

from functools import partial

import attrs
import trio
import trio.testing

from triolet_core.plugin import PluginSpec
from triolet_gateway import _memory
from triolet_gateway._gateway import Gateway
from triolet_gateway._plugin import plugin, run


class MemoryGateway:
    """Hand `plugin` to `open_server` in the place of the gateway's; it listens on its addresses too, if there are any.

    Its clients count like others: limits, logins, deliveries and their repeats are those of the gateway.
    """

    def __init__(self) -> None:
        self._gateway: Gateway | None = None
        self.plugin: PluginSpec = attrs.evolve(plugin, run=partial(run, on_ready=self._take))

    def _take(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def connect(self) -> trio.abc.Stream:
        """Return the client's end of a new connection; only while the server runs.

        Raises:
            BrokenResourceError: The gateway does not run, or takes no more connections.
        """
        gateway = self._gateway
        if gateway is None or not gateway.admit(_memory.HOST):
            raise trio.BrokenResourceError("the gateway takes no connection")
        ours, theirs = trio.testing.lockstep_stream_pair()  # the other pair would take any number of bytes
        gateway.start_soon(_memory.serve, gateway, theirs)
        return ours
