"""May this client in, and what is it told?"""

import attrs

import triolet_protocol as wire
from triolet_core import ConnectRequest, Device, DeviceLevel, ReasonCode
from triolet_core.model import MAX_ID_BYTES
from triolet_gateway._gateway import Gateway
from triolet_gateway._served import ServerEnd


@attrs.frozen
class Login:
    """A decision: the device, or none and why not. `answer` is for the client in either case."""

    device: Device | None
    answer: bytes
    reason: int = ReasonCode.SUCCESS
    detail: str = ""


def log_in_nowait(
    gateway: Gateway, connection: ServerEnd, connect: wire.Connect, keys: wire.KeyPair, connection_id: int
) -> Login:
    """Decide about a CONNECT; the connection is READY or CLOSED afterwards. `keys` are our half of the agreement.

    Raises:
        WouldBlock: Somebody has to be waited for, and nothing has happened; use `log_in`.
    """
    verdict = gateway.broker.users.authenticate_nowait(_request_of(connect))
    return _tell(gateway, _answer(gateway, connection, connect, keys, verdict), connect, connection_id)


async def log_in(gateway: Gateway, connection: ServerEnd, connect: wire.Connect, connection_id: int) -> Login:
    """Decide as `log_in_nowait` does, and wait for whoever has to be."""
    users, request = gateway.broker.users, _request_of(connect)
    revision = users.revision(connect.uid)
    verdict = await users.authenticate(request)
    while users.revision(connect.uid) != revision:  # a token was set or cleared meanwhile
        revision = users.revision(connect.uid)
        verdict = await users.authenticate(request)
    return _tell(gateway, _answer(gateway, connection, connect, gateway.keys.pair(), verdict), connect, connection_id)


def _request_of(connect: wire.Connect) -> ConnectRequest:
    return ConnectRequest(uid=connect.uid, token=connect.token, device_id=connect.device_id, flag=connect.device_flag)


def _tell(gateway: Gateway, login: Login, connect: wire.Connect, connection_id: int) -> Login:
    """Tell the log."""
    if login.device is not None:
        gateway.counters.logins_total += 1
        gateway.log.debug("login", connection_id=connection_id, uid=connect.uid)
        return login
    gateway.counters.login_failures_total += 1
    gateway.log.info(
        "login refused", connection_id=connection_id, uid=connect.uid, reason=login.reason, detail=login.detail
    )
    return login


def _answer(
    gateway: Gateway,
    connection: ServerEnd,
    connect: wire.Connect,
    keys: wire.KeyPair,
    verdict: tuple[ReasonCode, DeviceLevel],
) -> Login:
    reason, level = verdict
    if len(connect.device_id.encode()) > MAX_ID_BYTES:  # it is kept for as long as the connection
        return Login(
            None, connection.reject(ReasonCode.AUTH_FAIL), int(ReasonCode.AUTH_FAIL), "the device id is too long"
        )
    if reason == ReasonCode.SUCCESS and gateway.is_stopping:
        reason = ReasonCode.SYSTEM_ERROR
    if reason != ReasonCode.SUCCESS:
        return Login(None, connection.reject(reason), int(reason))
    try:
        answer = connection.accept(
            keys,
            gateway.keys.salt(),
            time_diff_ms=_fit(int(gateway.broker.clock_s() * 1000) - connect.client_timestamp),
            node_id=gateway.node_id,
            encrypt=not gateway.config.disable_encryption,
        )
    except wire.RemoteProtocolError as exc:
        return Login(None, exc.answer, exc.reason, exc.detail)
    device = Device(uid=connect.uid, device_id=connect.device_id, flag=connect.device_flag, level=int(level))
    return Login(device, answer)


def _fit(milliseconds: int) -> int:
    """Keep a time difference within 64 bits, whatever the client's clock says."""
    return max(-(2**63), min(milliseconds, 2**63 - 1))
