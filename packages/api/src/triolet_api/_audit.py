"""Who changed what, from where, with which outcome: a line of JSON per request, in a file that is only added to.

Lines hold no token and no payload. They are collected and written by one task; when the disk cannot follow, lines are
dropped, counted, and the loss is itself noted.
"""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import structlog
import trio
from msgspec import UNSET, UnsetType

from triolet_core.model import MAX_ID_BYTES

MOST_WAITING = 100_000
FLUSH_S = 0.25
_NAMED = ("channel_id", "channel_type", "uid", "from_uid", "plugin_no", "name", "username")
"""Fields of a body that say what was changed."""
_ENCODER = msgspec.json.Encoder()


class _Line(msgspec.Struct, gc=False):
    """What is noted of one request."""

    at: float
    who: str
    address: str = msgspec.field(name="from")
    what: str
    status: int
    channel_id: str | int | UnsetType = UNSET
    channel_type: str | int | UnsetType = UNSET
    uid: str | int | UnsetType = UNSET
    from_uid: str | int | UnsetType = UNSET
    plugin_no: str | int | UnsetType = UNSET
    name: str | int | UnsetType = UNSET
    username: str | int | UnsetType = UNSET


class AuditLog:
    """Lines that wait, and the file."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.is_on = path is not None
        self._lines: list[_Line] = []
        self._wake = trio.Event()
        self._is_awake = False
        self._log = structlog.get_logger("audit")
        self.dropped = 0

    def note(self, caller: str, address: str, method: str, path: str, body: Any, status: int) -> None:
        """Add a line; of a body the fields that say what was changed."""
        named = isinstance(body, dict)
        fields = (
            {name: _short(body[name]) for name in _NAMED if isinstance(body.get(name), (str, int))} if named else {}
        )
        self.add(caller, address, f"{method} {path}", status, fields)

    def add(self, caller: str, address: str, what: str, status: int, fields: Mapping[str, str | int]) -> None:
        """Add a line of fields that are known to be short texts and numbers, by their names in `_Line`."""
        if self._path is None:
            return
        if len(self._lines) >= MOST_WAITING:
            self.dropped += 1
            return
        self._lines.append(_Line(round(time.time(), 3), caller, address, what, status, **fields))
        if not self._is_awake:
            self._is_awake = True
            self._wake.set()

    async def run(self) -> None:
        """Write for ever; when cancelled, what waits is written first."""
        try:
            while True:
                await self._wake.wait()
                self._wake, self._is_awake = trio.Event(), False
                await trio.sleep(FLUSH_S)
                await self.flush()
        finally:
            with trio.move_on_after(2, shield=True):
                await self.flush()

    async def flush(self) -> None:
        """Write what waits."""
        lines, self._lines = self._lines, []
        if not lines or self._path is None:
            return
        if self.dropped:
            self._log.warning("audit lines were dropped", count=self.dropped)
            self.dropped = 0
        try:
            await trio.to_thread.run_sync(_append, self._path, _ENCODER.encode_lines(lines))
        except OSError as exc:
            self.dropped += len(lines)
            self._log.error("the audit log cannot be written", detail=exc.strerror)  # no traceback


def _short(value: str | int) -> str | int:
    """Return a value as it may be noted: no longer than an id, and text that can be written."""
    return value[:MAX_ID_BYTES].encode("utf-8", "replace").decode() if isinstance(value, str) else value


def _append(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        while data:
            data = data[os.write(descriptor, data) :]
    finally:
        os.close(descriptor)
