"""Requests that are refused, and how the answer says so. Source: http-api.md, section 3.2."""

from typing import Any

BAD_FORMAT = "数据格式有误！"


class ApiError(Exception):
    """A request that is refused; the texts are the reference's where it has one."""

    def __init__(self, message: str, *, status: int = 400, code: str = "bad_request", shown: int = 0) -> None:
        self.message = message
        self.status = status
        self.code = code
        self.shown = shown or status
        """The status in the body, where the reference's differs from that of HTTP."""
        super().__init__(message)

    def as_json(self) -> dict[str, Any]:
        """Return the body of the answer."""
        return {"msg": self.message, "status": self.shown, "code": self.code}


def forbidden() -> ApiError:
    """Return the refusal of somebody who is known and may not."""
    return ApiError("没有权限", code="forbidden", shown=403)


def missing(text: str) -> ApiError:
    """Return the refusal of a request that lacks something."""
    return ApiError(text, code="missing_field")


def bad_field(name: str, value: Any, accepted: str) -> ApiError:
    """Return the refusal of a field: its name, the kind of its value (never the value), and what is accepted."""
    return ApiError(f"{BAD_FORMAT}: {name} ({kind_of(value)}): {accepted}", code="bad_field")


def kind_of(value: Any) -> str:
    """Name the JSON kind of a value."""
    kinds = {bool: "true/false", int: "number", float: "number", str: "text", list: "list", dict: "object"}
    return kinds.get(type(value), "null")
