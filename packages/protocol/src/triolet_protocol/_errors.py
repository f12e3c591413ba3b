"""Two kinds of mistake: theirs and ours."""


class ProtocolError(Exception):
    """Base of both."""


class LocalProtocolError(ProtocolError):
    """We tried to send what the protocol, or the peer's version of it, does not have."""


class RemoteProtocolError(ProtocolError):
    """The peer broke the protocol; the connection ends.

    Attributes:
        reason: A `ReasonCode`.
        answer: Bytes to send before closing, possibly none.
        detail: What was wrong, for the log; holds nothing that the peer sent.
    """

    def __init__(self, reason: int, detail: str, answer: bytes = b"") -> None:
        self.reason = reason
        self.detail = detail
        self.answer = answer
        super().__init__(reason, detail, answer)

    def __str__(self) -> str:
        return f"{self.detail} (reason {self.reason})"


class NotText(RemoteProtocolError):
    """A string is not UTF-8."""


class PayloadError(ProtocolError):
    """A payload does not decrypt."""


class RequestError(ProtocolError):
    """One JSON-RPC request cannot be understood; it is answered with an error, and the connection goes on.

    Attributes:
        code: An error code of JSON-RPC 2.0, section 5.1.
        detail: What was wrong; holds nothing that the peer sent.
    """

    def __init__(self, code: int, detail: str) -> None:
        self.code = code
        self.detail = detail
        super().__init__(code, detail)

    def __str__(self) -> str:
        return f"{self.detail} (code {self.code})"
