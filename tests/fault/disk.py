"""What would be on disk if the power failed: copies of a store's directory, taken where its writes happen."""

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest

from triolet_core.store import _backlog, _journal


@attrs.define(eq=False)
class Crashes:
    """Copies `directory` into numbered ones below `copies` at every write of the journal and of LMDB."""

    directory: Path
    copies: Path
    known: Callable[[], object]
    """What had been acknowledged, asked for at each copy."""
    dice: random.Random
    found: list[tuple[Path, str, object]] = attrs.Factory(list)
    """(copy, at what, what had been acknowledged)"""

    def copy(self, what: str) -> None:
        """Keep the files as they are."""
        to = self.copies / str(len(self.found))
        shutil.copytree(self.directory, to, ignore=shutil.ignore_patterns("lock", "*.mdb-lock"))
        self.found.append((to, what, self.known()))

    def attach(self, patch: pytest.MonkeyPatch) -> None:
        """Copy from now on: before, in the middle of and behind each record; before and behind each settling."""
        write, settle = _journal._write, _backlog.Backlog._write

        def torn_write(descriptor: int, data: bytes, offset: int, is_synced: bool) -> float:
            self.copy("before a record")
            part = self.dice.randrange(len(data))
            kept = os.pread(descriptor, len(data), offset)
            os.pwrite(descriptor, data[:part], offset)
            self.copy("in a record")
            os.pwrite(descriptor, kept, offset)
            took = write(descriptor, data, offset, is_synced)
            self.copy("behind a record")
            return took

        def watched_settle(backlog: _backlog.Backlog) -> None:
            self.copy("before settling")
            settle(backlog)
            self.copy("behind settling")

        patch.setattr(_journal, "_write", torn_write)
        patch.setattr(_backlog.Backlog, "_write", watched_settle)
