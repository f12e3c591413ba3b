"""An error in the code of one connection ends that connection, and no task that serves many."""

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from triolet_gateway._session import ClientSession

S = TypeVar("S", bound=type)


def crash(session: "ClientSession") -> None:
    """End a session whose code has raised the exception that is being handled: log it, count it."""
    session.on_crash()
    session.give_up()


def guarded(*names: str) -> Callable[[S], S]:
    """Let these methods of a session class end their session instead of raising; they return False then.

    They are those that others call: the writer, a lane, a timer, another connection. What a session does in its own
    task may raise: its transport ends it.
    """

    def guard(cls: S) -> S:
        for name in names:
            setattr(cls, name, _guarded(getattr(cls, name)))
        return cls

    return guard


def _guarded(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def call(session: "ClientSession", *args: Any, **kwargs: Any) -> Any:
        try:
            return method(session, *args, **kwargs)
        except Exception:
            crash(session)
            return False

    return call
