"""The exception tree. Refusals are `ReasonCode` values, not exceptions."""


class TrioletError(Exception):
    """Base of everything that triolet raises on purpose."""


class ConfigError(TrioletError):
    """A setting is wrong."""

    def __init__(self, key: str, problem: str, *, origin: str = "") -> None:
        self.key = key
        self.problem = problem
        self.origin = origin
        super().__init__(key, problem, origin)

    def __str__(self) -> str:
        where = f" ({self.origin})" if self.origin else ""
        return f"{self.key}{where}: {self.problem}"


class ConfigErrors(ConfigError):
    """Several settings are wrong; `errors` holds one `ConfigError` each."""

    def __init__(self, errors: tuple[ConfigError, ...]) -> None:
        self.errors = errors
        super().__init__(errors[0].key, errors[0].problem, origin=errors[0].origin)

    def __str__(self) -> str:
        return "\n".join(str(error) for error in self.errors)


class PluginError(TrioletError):
    """A plugin failed; the cause is kept as `__cause__`."""

    def __init__(self, name: str, phase: str) -> None:
        self.name = name
        self.phase = phase
        super().__init__(name, phase)

    def __str__(self) -> str:
        cause = f": {self.__cause__!r}" if self.__cause__ is not None else ""
        return f"plugin {self.name!r} failed while {self.phase}{cause}"


class StoreError(TrioletError):
    """The store cannot do what was asked."""


class StoreFull(StoreError):
    """No space is left: writes are refused, reads go on."""


class StoreClosed(StoreError):
    """The store has been closed."""


class StoreLocked(StoreError):
    """Another process holds the store."""


class StoreCorrupt(StoreError):
    """The file is foreign, damaged, or of a format this version cannot read."""


class NotFound(TrioletError):
    """What was named does not exist."""


class StreamClosed(TrioletError):
    """A piece came for a stream that has ended."""


class ChannelMismatch(TrioletError):
    """An event names another channel than the stream was begun in."""


class StreamLimit(TrioletError):
    """A stream, or the number of open ones, has reached its bound."""

    def __init__(self, key: str, limit: int) -> None:
        self.key = key
        self.limit = limit
        super().__init__(key, limit)

    def __str__(self) -> str:
        return f"{self.key} is reached ({self.limit})"


class Overloaded(TrioletError):
    """A bound was reached and stayed reached for longer than the caller may wait."""

    def __init__(self, where: str, limit: float) -> None:
        self.where = where
        self.limit = limit
        super().__init__(where, limit)

    def __str__(self) -> str:
        return f"{self.where} is full (limit {self.limit:g})"


class BackendError(TrioletError):
    """The remote side of a hook failed."""

    def __init__(self, responder: str, detail: str) -> None:
        self.responder = responder
        self.detail = detail
        super().__init__(responder, detail)

    def __str__(self) -> str:
        return f"{self.responder}: {self.detail}"
