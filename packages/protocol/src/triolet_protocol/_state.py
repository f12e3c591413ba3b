"""How far a connection is, and what it may take."""

import enum
from dataclasses import dataclass

from triolet_protocol._codec import MAX_FRAME


class Role(enum.Enum):
    """Which end this is."""

    SERVER = "server"
    CLIENT = "client"


class State(enum.Enum):
    """How far a connection is."""

    IDLE = "idle"
    PENDING = "pending"
    READY = "ready"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds that hold before memory is taken."""

    max_frame_size: int = MAX_FRAME
    max_login_bytes: int = 65536
    max_json_depth: int = 32
    max_batch: int = 100
