"""What can go wrong, as a user of the client sees it. A refused message is no error: see `Receipt`."""

import ssl

import anyio

from triolet_client._model import reason_name

LOST = (OSError, ssl.SSLError, anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream)
"""What a stream raises when the other end is gone."""


class ClientError(Exception):
    """Base of all."""


class ConnectionFailed(ClientError):
    """The server could not be reached, or did not speak the protocol. Trying again may help."""


class Refused(ClientError):
    """The server did not let this client in.

    Attributes:
        reason: A `Reason`.
    """

    def __init__(self, reason: int) -> None:
        self.reason = reason
        super().__init__(reason)

    def __str__(self) -> str:
        return f"the server refused the login: {reason_name(self.reason)}"


class WatchRefused(ClientError):
    """The server does not tell this client whether some users are online.

    Attributes:
        reason: A `Reason`: `NOT_ALLOW_SEND` if this user may not know, `RATE_LIMIT` if it is too much.
        uids: The users it was about; empty if it was about the whole request.
    """

    def __init__(self, reason: int, uids: tuple[str, ...]) -> None:
        self.reason = reason
        self.uids = uids
        super().__init__(reason, uids)

    def __str__(self) -> str:
        return f"the server does not tell who is online: {reason_name(self.reason)} {', '.join(self.uids)}".rstrip()


class Kicked(ClientError):
    """The server has put this client out: another device logged in, say. The client does not come back by itself.

    Attributes:
        reason: A `Reason`.
        text: The server's words.
    """

    def __init__(self, reason: int, text: str) -> None:
        self.reason = reason
        self.text = text
        super().__init__(reason, text)

    def __str__(self) -> str:
        return f"the server ended the session: {reason_name(self.reason)} {self.text}".rstrip()


class ClientClosed(ClientError):
    """The client was closed."""


class NotAcknowledged(ClientError):
    """A message was not acknowledged in time. It may have been stored: send it again with the same number.

    Attributes:
        client_msg_no: Its number.
    """

    def __init__(self, client_msg_no: str) -> None:
        self.client_msg_no = client_msg_no
        super().__init__(client_msg_no)

    def __str__(self) -> str:
        return f"no acknowledgement for message {self.client_msg_no}; it may have been stored"


class NoApi(ClientError):
    """This needs the HTTP API, and the client was opened without its address."""

    def __str__(self) -> str:
        return "this needs the HTTP API: open the client with api=..."


class ApiError(ClientError):
    """The HTTP API refused a request.

    Attributes:
        path: What was asked.
        status: Status of HTTP, or of the answer where the API says so in its body.
        text: The server's words.
    """

    def __init__(self, path: str, status: int, text: str) -> None:
        self.path = path
        self.status = status
        self.text = text
        super().__init__(path, status, text)

    def __str__(self) -> str:
        return f"{self.path} was refused: {self.status} {self.text}".rstrip()


class ApiUnavailable(ClientError):
    """The HTTP API could not be reached, or cannot answer now. Trying again may help.

    Attributes:
        path: What was asked.
    """

    def __init__(self, path: str, detail: str) -> None:
        self.path = path
        self.detail = detail
        super().__init__(path, detail)

    def __str__(self) -> str:
        return f"{self.path} cannot be asked now: {self.detail}"
