"""The gRPC form. Imported only if it is configured: it needs `triolet-webhook[grpc]`.

The client of grpcio blocks, so each call runs in a thread of its own limiter. A call that is cancelled leaves its
thread behind until its deadline, or until the channel closes.
"""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Self

import attrs
import grpc
import trio

from triolet_core.config import parse_address
from triolet_webhook._config import WebhookConfig
from triolet_webhook._guard import AddressGuard
from triolet_webhook._http import check_literal
from triolet_webhook._proto import wkhook_pb2 as wkhook
from triolet_webhook._receiver import DeliveryFailed, Parcel, headers_of

THREADS = 20
"""Calls at once; the reference's pool has 2 to 20 connections."""
METHOD = "/wkhook.WebhookService/SendWebhook"
KEY = "webhook.grpcAddr"

if TYPE_CHECKING:  # generic in its stubs only
    _Call = grpc.UnaryUnaryMultiCallable[wkhook.EventReq, wkhook.EventResp]


@attrs.define(eq=False)
class GrpcReceiver:
    """Calls one `WebhookService`, in plain text as the reference does."""

    address: str
    _guard: AddressGuard
    _config: WebhookConfig
    _clock_s: Callable[[], float]
    _limiter: trio.CapacityLimiter = attrs.Factory(lambda: trio.CapacityLimiter(THREADS))
    _target: str = ""
    _channel: grpc.Channel | None = None
    _call: "_Call | None" = None
    form: str = "grpc"

    @classmethod
    @asynccontextmanager
    async def open(cls, config: WebhookConfig, *, clock_s: Callable[[], float] = time.time) -> AsyncIterator[Self]:
        """Yield a receiver; the channel and every call on it end with the block.

        Raises:
            ConfigError: The address cannot be used.
        """
        host, port = parse_address(KEY, config.grpc_addr)
        check_literal(KEY, host, allow_link_local=config.allow_link_local)
        receiver = cls(f"{host}:{port}", AddressGuard(host, port, config.allow_link_local), config, clock_s)
        try:
            yield receiver
        finally:
            receiver._close()

    async def deliver(self, parcel: Parcel) -> None:
        """Make a call; the status Success takes the parcel."""
        call = await self._open_call()
        headers = headers_of(parcel, self._config.secret, self._clock_s)
        metadata = tuple((name.lower(), value) for name, value in headers.items())
        request = wkhook.EventReq(event=parcel.event, data=parcel.body)

        def invoke() -> wkhook.EventResp:
            return call(request, timeout=self._config.timeout, metadata=metadata)

        try:
            answer = await trio.to_thread.run_sync(invoke, limiter=self._limiter, abandon_on_cancel=True)
        except grpc.RpcError as exc:
            self._guard.forget()
            raise DeliveryFailed(_reason(exc)) from exc
        except ValueError as exc:  # the channel was closed meanwhile
            raise DeliveryFailed("the connection was closed") from exc
        if answer.status != wkhook.EventStatus.Success:
            raise DeliveryFailed("the receiver answered Error")

    async def _open_call(self) -> "_Call":
        """Return the method of a channel to the first address of the receiver; a new one if that has changed."""
        address = (await self._guard.addresses())[0]
        target = f"ipv6:[{address}]:{self._guard.port}" if ":" in address else f"ipv4:{address}:{self._guard.port}"
        if self._call is None or target != self._target:
            self._close()
            self._target = target
            self._channel = grpc.insecure_channel(target, options=self._options())
            self._call = self._channel.unary_unary(
                METHOD,
                request_serializer=wkhook.EventReq.SerializeToString,
                response_deserializer=wkhook.EventResp.FromString,
            )
        return self._call

    def _options(self) -> list[tuple[str, int]]:
        return [
            ("grpc.enable_http_proxy", 0),
            ("grpc.max_receive_message_length", self._config.max_answer_bytes),
            ("grpc.max_send_message_length", -1),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 1000),  # our own pauses come on top
        ]

    def _close(self) -> None:
        if self._channel is not None:
            self._channel.close()
        self._channel = self._call = None


def _reason(exc: grpc.RpcError) -> str:
    """Return the status and its text, without the payload."""
    call: Any = exc  # what a unary call raises is a `grpc.Call` too, which the stubs hold to be impossible
    return f"{call.code().name}: {call.details()}"
