"""What handlers work with: the call, and the record that declares an endpoint."""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial, wraps
from typing import Any, Protocol

import attrs

from triolet_api._config import ApiConfig
from triolet_api._errors import ApiError
from triolet_api._fields import ChannelType as ChannelTypeField
from triolet_api._fields import Rules, Text, field
from triolet_api._limits import Repeats
from triolet_api._users import EVERYTHING
from triolet_core import Broker, ChannelKey, ChannelType, channel_key

READ, WRITE = "r", "w"


@attrs.frozen(kw_only=True)
class Caller:
    """Who calls, and from where."""

    name: str = ""
    """User name; empty if nobody had to say."""
    address: str = ""
    rights: Mapping[str, str] = attrs.Factory(dict)
    """Actions by resource, both may be `*`."""

    def may(self, resource: str, action: str) -> bool:
        """Whether the caller has a right."""
        if self.rights is EVERYTHING:
            return True
        return any(action in self.rights.get(each, "") or "*" in self.rights.get(each, "") for each in (resource, "*"))


@attrs.frozen(kw_only=True)
class Call:
    """One request on its way to a handler."""

    services: "Services"
    caller: Caller
    path: Mapping[str, str] = attrs.Factory(dict)
    """Parts of the path."""
    query: Mapping[str, str] = attrs.Factory(dict)
    host: str = ""
    """The name or address that the caller reached this server by."""
    json: Any = None
    """The body as it came, for the endpoints that take more than one form."""
    headers: Mapping[str, str] = attrs.Factory(dict)
    """By lower-case name."""
    method: str = ""
    raw: bytes = b""
    """The body, for those who read it themselves."""

    @property
    def broker(self) -> Broker:
        """The broker."""
        return self.services.broker

    @property
    def rules(self) -> Rules:
        """How bodies are read."""
        return self.services.rules

    def path_number(self, name: str, *, high: int = 2**63 - 1) -> int:
        """Return a number of the path.

        Raises:
            ApiError: It is none.
        """
        text = self.path[name]
        if not (text.isascii() and text.isdigit()) or len(text) > 19 or int(text) > high:
            raise ApiError(f"{name}: a number from 0 to {high}", code="bad_path")
        return int(text)


class Services:
    """What all calls share."""

    def __init__(self, broker: Broker, config: ApiConfig) -> None:
        self.broker = broker
        self.config = config
        self.rules = Rules(
            allowed_characters="#&" if broker.compat.allows_hash_and_ampersand else "",
            max_list_items=config.max_list_items,
        )
        self.repeats = Repeats()
        self.parts: dict[str, Any] = {}
        """What the application adds: authorisation, samples, the document."""


class Form(Protocol):
    """A body that was read the quick way."""

    def noted(self) -> Mapping[str, str | int]:
        """Return the fields that say what was changed, as `AuditLog.add` takes them."""
        ...


@attrs.frozen
class Quick:
    """How most requests to an endpoint are answered without waiting; what it does not take goes to the handler.

    It takes nothing that the handler would refuse, and does the same.
    """

    read: Callable[[bytes], Form | None]
    """Reads the body; None if it is no plain one, be it wrong or only unusual."""
    start: Callable[["Services", Any, Callable[[Any], None]], bool]
    """Answers a form through its last argument, with an `Answer` or an exception, now or when what it began is done.
    False if that would have to wait: then nothing is done."""


Handler = Callable[[Call, Any], Awaitable[Any]]


def reads(handler: Callable[[Call, Any], Any]) -> Handler:
    """Make a handler of a function that only reads messages or conversations, and sees all that is acknowledged."""

    @wraps(handler)
    async def handle(call: Call, given: Any) -> Any:
        return await call.broker.settled(partial(handler, call, given))

    return handle


@attrs.frozen(kw_only=True)
class Route:
    """One endpoint."""

    method: str
    path: str
    """With `{name}` for variable parts."""
    handler: Handler
    body: type[Any] | None = None
    """The class of the body; None if there is none, or the handler reads `call.json` itself."""
    query: type[Any] | None = None
    """The class of the query; beside a body it is only described, and the handler reads `call.query`."""
    answer: Any = None
    """The type of the answer with status 200, for OpenAPI; None for what is no JSON."""
    media: str = "text/plain"
    """The media type of an answer that is no JSON."""
    takes: Any = None
    """JSON schema of the body where that is no class."""
    action: str = READ
    resource: str = "api"
    """The resource whose right is asked for, of callers that have rights."""
    is_admin: bool = False
    """Whether credentials are asked for as soon as any are configured."""
    is_free: bool = False
    """Whether anybody may call."""
    is_page: bool = False
    """Whether it is for browsers, and not in the OpenAPI document."""
    quick: Quick | None = None
    """How most requests are answered, for the hot endpoints."""
    mounted: Callable[[ApiConfig], bool] | None = None
    """Whether the settings want it; None: always."""

    def is_mounted(self, config: ApiConfig) -> bool:
        """Whether the settings want it."""
        return self.mounted is None or self.mounted(config)

    @property
    def doc(self) -> str:
        """What it does, in a line."""
        return (self.handler.__doc__ or "").strip().partition("\n")[0]


def post(path: str, handler: Handler, body: type[Any] | None, answer: Any, **more: Any) -> Route:
    """Return a POST endpoint that changes something."""
    return Route(method="POST", path=path, handler=handler, body=body, answer=answer, **{"action": WRITE, **more})


def ask(path: str, handler: Handler, body: type[Any] | None, answer: Any, **more: Any) -> Route:
    """Return a POST endpoint that only reads."""
    return Route(method="POST", path=path, handler=handler, body=body, answer=answer, **more)


def get(path: str, handler: Handler, query: type[Any] | None, answer: Any, **more: Any) -> Route:
    """Return a GET endpoint."""
    return Route(method="GET", path=path, handler=handler, query=query, answer=answer, **more)


@attrs.frozen(kw_only=True)
class Nothing:
    """No fields."""


@attrs.frozen(kw_only=True)
class PersonTarget:
    """A channel as a user sees it."""

    channel_id: str = field(Text(missing="channel_id不能为空！"))
    channel_type: int = field(ChannelTypeField(missing="channel_type不能为0"))
    login_uid: str = field(Text(doc="who asks; needed for a person channel that is named by the other uid"))

    @property
    def key(self) -> ChannelKey:
        """The channel as it is stored."""
        if self.channel_type == ChannelType.PERSON and not self.login_uid and "@" not in self.channel_id:
            raise ApiError("login_uid不能为空！", code="missing_field")
        return key_for(self.login_uid, self.channel_id, self.channel_type)


def key_for(login_uid: str, channel_id: str, channel_type: int) -> ChannelKey:
    """Return the stored key of a channel as a caller names it: a person by the other uid, or by the stored id."""
    if channel_type == ChannelType.PERSON and "@" in channel_id:
        return ChannelKey(channel_id, channel_type)
    return channel_key(login_uid, channel_id, channel_type)
