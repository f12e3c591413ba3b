"""The journal: what is acknowledged and not in LMDB yet, in two files that are overwritten in turn.

Theory of operation. Each batch of rows is one record: it begins on a page boundary, carries the next number, and is
synced before anybody is told of it. Rows go to LMDB later, many batches in one transaction, together with the number
of the last record among them; a transaction made for anything else takes a number too. A file whose records are all
in LMDB is written again from its start; its pages are on disk already, so that a sync writes a page and no metadata.

Recovery. Every record of both files with a number above the one that LMDB knows is taken, in the order of numbers. A
record that does not prove whole was never acknowledged: it is the last one, torn by the crash, and is left out. If a
later one is whole, a record in the middle is missing, which no crash does: that is damage. The proof is a hash with a
key that only the store knows, so that nothing in a message can pass for a record.
"""

import errno
import hashlib
import os
import struct
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import attrs

from triolet_core import speedups
from triolet_core.errors import StoreCorrupt, StoreError, StoreFull

PAGE = 4096
GROWTH = 1 << 20
"""Bytes by which a file grows at once: growing costs a sync with metadata (1 to 2 ms)."""
ENOUGH = 4 << 20
"""Bytes in a file from which on the other one is taken, if it is free."""
MOST = 16 << 20
"""Bytes in a file at most; a record has to fit."""
FILE_NAMES = ("triolet.journal-0", "triolet.journal-1")

_HEAD = struct.Struct(">8sQI")
_SIGNED = struct.Struct(">QI")
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_UNKNOWN = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})
_SYNC_AT_ONCE: int = getattr(os, "RWF_DSYNC", 0)
_WEIGHT_OF_NEWEST = 0.2
_LONG_S = 0.0013
"""A write that takes longer counts as this, so that a single one says nothing of the disk."""
_compiled = speedups.find(os.environ)


@attrs.define(eq=False)
class _File:
    path: Path
    descriptor: int
    offset: int = 0
    """Where the next record goes."""
    size: int = 0
    """Bytes that it has on disk."""
    last: int = 0
    """Number of the newest record in it."""


class Journal:
    """Two files; used by one thread at a time."""

    def __init__(self, files: Sequence[_File], key: bytes, *, is_synced: bool) -> None:
        self._files = files
        self._current = files[0]
        self._key = key
        self._is_synced = is_synced
        self.number = 0
        """Number of the newest record."""
        self.applied = 0
        """Records up to this one are in LMDB, and that is on disk."""
        self.write_s = 0.0
        """How long writing and syncing a record takes, the newest count most."""

    # --- recovery

    def recover(self, applied: int, *, may_have_holes: bool) -> list[bytes]:
        """Return the bodies of the records behind `applied`, rising.

        Args:
            applied: Number of the last record that is in LMDB.
            may_have_holes: Nothing was synced, or LMDB may have lost commits: what does not follow on is dropped.

        Raises:
            StoreCorrupt: One in the middle is missing.
        """
        found: dict[int, bytes] = {}
        for file in self._files:
            found.update(self._records(os.pread(file.descriptor, file.size, 0), applied))
        self.number = max(found, default=applied)
        self.applied = applied
        bodies = _unbroken(found, applied)
        if len(bodies) != len(found) and not may_have_holes:
            raise StoreCorrupt(
                f"the journal {self._current.path.parent / FILE_NAMES[0]} is damaged: record"
                f" {applied + len(bodies) + 1} is missing and {self.number} is there; restore a backup, or move both"
                " journal files away to go on without what they hold"
            )
        return bodies

    def _records(self, data: bytes, applied: int) -> Iterator[tuple[int, bytes]]:
        at = 0
        while at + _HEAD.size <= len(data):
            digest, number, length = _HEAD.unpack_from(data, at)
            begin = at + _HEAD.size
            body = data[begin : begin + length] if number > applied else b""
            if number > applied and len(body) == length and digest == self._digest(number, body):
                yield number, body
                at += _pages(_HEAD.size + length)
            else:
                at += PAGE

    def _digest(self, number: int, body: bytes) -> bytes:
        proof = hashlib.blake2b(_SIGNED.pack(number, len(body)), digest_size=8, key=self._key)
        proof.update(body)
        return proof.digest()

    # --- writing

    def fits_at_once(self, body: bytes) -> bool:
        """Whether a record can be written without growing a file."""
        file = self._next_file()
        return self._start_in(file) + _pages(_HEAD.size + len(body)) <= file.size

    def append(self, body: bytes) -> None:
        """Write a record and sync it. Blocks; on an error nothing is left of it.

        Raises:
            StoreFull: There is no room for it in the files or on the disk.
            OSError: Writing failed for another reason; what is on disk is unknown.
        """
        number = self.number + 1
        file = self._next_file()
        start = self._start_in(file)
        head = _HEAD.pack(self._digest(number, body), number, len(body))
        size = _pages(len(head) + len(body))
        if start + size > MOST:
            raise StoreFull(f"a batch of {len(body)} bytes finds no place in the journal ({MOST} bytes a file)")
        try:
            if start + size > file.size:
                self._grow(file, start + size)
            elif start == 0:
                _uncache(file.descriptor)
            record = b"".join((head, body, bytes(size - len(head) - len(body))))
            took = _write(file.descriptor, record, start, self._is_synced)
        except OSError as exc:
            if exc.errno not in _FULL:
                raise
            os.ftruncate(file.descriptor, start)
            file.size = start
            raise StoreFull(f"no space is left for the journal {file.path}: {exc.strerror}") from exc
        self._current = file
        file.offset = start + size
        self.number = file.last = number
        self.write_s += (min(took, _LONG_S) - self.write_s) * _WEIGHT_OF_NEWEST

    def pass_over(self) -> int:
        """Return the number of a transaction that goes past the journal, for when it is committed.

        It is given to no record: a journal that goes on behind a transaction that LMDB does not know is broken there.
        """
        return self.number + 1

    def settle(self, number: int) -> None:
        """Take note that LMDB has everything up to `number`; in any thread, if a record has that number."""
        if number > self.number:
            self.number = number
        self.applied = number

    def _next_file(self) -> _File:
        current, other = self._current, self._files[self._current is self._files[0]]
        is_enough = current.last > self.applied and current.offset >= ENOUGH
        return other if is_enough and other.last <= self.applied else current

    def _start_in(self, file: _File) -> int:
        return 0 if file.last <= self.applied else file.offset

    def _grow(self, file: _File, needed: int) -> None:
        size = min(max(file.size + GROWTH, needed), MOST)
        _write(file.descriptor, bytes(size - file.size), file.size, is_synced=False)
        if self._is_synced:
            os.fsync(file.descriptor)
        _uncache(file.descriptor)
        file.size = size

    def empty(self) -> None:
        """Cut both files to nothing: everything is in LMDB, and that is on disk."""
        for file in self._files:
            os.ftruncate(file.descriptor, 0)
            file.offset = file.size = 0


def _unbroken(found: Mapping[int, bytes], applied: int) -> list[bytes]:
    bodies: list[bytes] = []
    while (number := applied + len(bodies) + 1) in found:
        bodies.append(found[number])
    return bodies


def _pages(size: int) -> int:
    """Round up to whole pages."""
    return -(-size // PAGE) * PAGE


def _write(descriptor: int, data: bytes, offset: int, is_synced: bool) -> float:  # noqa: FBT001  # of this module only
    """Write all of it, and sync: in one call where the system can. Returns the seconds it took."""
    try:
        if is_synced and _compiled is not None:
            took: float = _compiled.write_synced(descriptor, data, offset)
            return took
        began = time.perf_counter()
        if is_synced and _SYNC_AT_ONCE:
            _write_with(lambda view, at: os.pwritev(descriptor, [view], at, _SYNC_AT_ONCE), data, offset)
            return time.perf_counter() - began
    except OSError as exc:
        if exc.errno not in _UNKNOWN:
            raise
    began = time.perf_counter()
    _write_with(lambda view, at: os.pwrite(descriptor, view, at), data, offset)
    if is_synced:
        os.fsync(descriptor)
    return time.perf_counter() - began


def _write_with(write: Callable[[memoryview, int], int], data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        done = write(view, offset)
        view, offset = view[done:], offset + done


def _uncache(descriptor: int) -> None:
    """Drop what the system keeps of a file: it keeps large writes as large units, and would count a page as one."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


@contextmanager
def open_journal(directory: Path, key: bytes, *, is_synced: bool) -> Iterator[Journal]:
    """Open the two files in `directory`, which are made if need be.

    Raises:
        StoreError: They cannot be used.
    """
    files: list[_File] = []
    try:
        try:
            for name in FILE_NAMES:
                descriptor = os.open(directory / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                files.append(_File(directory / name, descriptor, size=os.fstat(descriptor).st_size))
        except OSError as exc:
            raise StoreError(f"the journal in {directory} cannot be used: {exc.strerror}") from exc
        yield Journal(files, key, is_synced=is_synced)
    finally:
        for file in files:
            os.close(file.descriptor)
