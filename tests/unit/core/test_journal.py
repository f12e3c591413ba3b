"""The journal's files: what is read back after a crash, and what is refused."""

import errno
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.hotpaths import compiled
from triolet_core import StoreCorrupt, StoreFull
from triolet_core.store import _backlog, _journal
from triolet_core.store._journal import FILE_NAMES, PAGE, Journal, open_journal

KEY = b"0123456789abcdef"
HEAD = 20


@contextmanager
def journal_in(path: Path, applied: int = 0, *, key: bytes = KEY) -> Iterator[tuple[Journal, list[bytes]]]:
    """Open a journal and recover what is in it."""
    with open_journal(path, key, is_synced=False) as journal:
        yield journal, journal.recover(applied, may_have_holes=False)


def written(path: Path, *bodies: bytes) -> Path:
    """Write records and return the file that they are in."""
    with journal_in(path) as (journal, _):
        for body in bodies:
            journal.append(body)
    return path / FILE_NAMES[0]


def recovered(path: Path, applied: int = 0) -> list[bytes]:
    with journal_in(path, applied) as (_, bodies):
        return bodies


def test_records_behind_the_applied_one_come_back_in_order(tmp_path: Path) -> None:
    bodies = [bytes([n]) * (n * 3000 + 1) for n in range(5)]
    written(tmp_path, *bodies)
    assert [recovered(tmp_path, applied) for applied in range(6)] == [bodies[applied:] for applied in range(6)]


def test_numbers_go_on_after_a_recovery(tmp_path: Path) -> None:
    written(tmp_path, b"a", b"b")
    with journal_in(tmp_path, 2) as (journal, bodies):
        assert (bodies, journal.number) == ([], 2)


def test_a_record_torn_at_any_byte_is_left_out(tmp_path: Path) -> None:
    """It was never acknowledged: the sync had not come back."""
    last = os.urandom(PAGE + 100)
    file = written(tmp_path, b"first", b"second", last)
    whole = file.read_bytes()
    for at in reversed(range(HEAD + len(last))):
        os.truncate(file, 2 * PAGE + at)
        assert recovered(tmp_path) == [b"first", b"second"]
    for at in range(0, HEAD + len(last), 101):  # the file had its length before, and only the beginning was written
        file.write_bytes(whole[: 2 * PAGE + at] + b"\xa5" * (len(whole) - 2 * PAGE - at))
        assert recovered(tmp_path) == [b"first", b"second"]
    file.write_bytes(whole)
    assert recovered(tmp_path) == [b"first", b"second", last]


def test_a_flipped_bit_in_the_last_record_leaves_it_out_and_before_it_is_damage(tmp_path: Path) -> None:
    file = written(tmp_path, b"first", b"second", b"third")
    whole = file.read_bytes()
    for at in range(HEAD + 5):
        for record, body in enumerate((b"first", b"second", b"third")):
            broken = bytearray(whole)
            broken[record * PAGE + at] ^= 1 << (at % 8)
            file.write_bytes(broken)
            if record == 2:
                assert recovered(tmp_path) == [b"first", b"second"], body
            else:
                with pytest.raises(StoreCorrupt, match=f"record {record + 1} is missing and 3 is there"):
                    recovered(tmp_path)


def test_a_journal_that_does_not_follow_on_is_refused(tmp_path: Path) -> None:
    """The tree is an older copy than the journal: a backup was put under it, and a transaction is missing."""
    with journal_in(tmp_path) as (journal, _):
        for _ in range(3):
            journal.append(b"old")
        journal.settle(journal.pass_over())
        journal.append(b"new")
    with pytest.raises(StoreCorrupt, match="record 4 is missing and 5 is there"):
        recovered(tmp_path, 1)
    assert recovered(tmp_path, 4) == [b"new"]


def test_without_syncs_what_follows_on_is_taken_and_the_rest_dropped(tmp_path: Path) -> None:
    file = written(tmp_path, b"first", b"second", b"third")
    broken = bytearray(file.read_bytes())
    broken[PAGE + HEAD] ^= 1
    file.write_bytes(broken)
    with open_journal(tmp_path, KEY, is_synced=False) as journal:
        assert journal.recover(0, may_have_holes=True) == [b"first"]
        assert journal.number == 3  # so that what was dropped is never taken for what comes


def test_what_an_earlier_round_left_behind_is_not_read_again(tmp_path: Path) -> None:
    with journal_in(tmp_path) as (journal, _):
        for n in range(5):
            journal.append(b"%d" % n)
        journal.settle(5)
        journal.append(b"new")
    assert recovered(tmp_path, 5) == [b"new"]


def test_nothing_in_a_message_passes_for_a_record(tmp_path: Path) -> None:
    """Its sender does not know the key; also if the record that it lies in is torn."""
    (tmp_path / "other").mkdir()
    forged = written(tmp_path / "other", b"", b"forged").read_bytes()
    with journal_in(tmp_path / "other", key=b"guess") as (_, bodies):
        assert bodies == []
    (tmp_path / "mine").mkdir()
    with open_journal(tmp_path / "mine", b"secret", is_synced=False) as journal:
        journal.recover(0, may_have_holes=False)
        journal.append(b"first")
        journal.append(bytes(PAGE - HEAD) + forged)
    file = tmp_path / "mine" / FILE_NAMES[0]
    torn = bytearray(file.read_bytes())
    torn[PAGE + HEAD] = 1
    file.write_bytes(torn)
    with journal_in(tmp_path / "mine", key=b"secret") as (_, bodies):
        assert bodies == [b"first"]


def test_files_take_turns_and_do_not_grow_for_ever(tmp_path: Path) -> None:
    """Half a round behind, as the tree is."""
    body = os.urandom(1 << 20)
    with journal_in(tmp_path) as (journal, _):
        for n in range(1, 60):
            journal.append(body)
            journal.settle(max(n - 3, 0))
        sizes = [(tmp_path / name).stat().st_size for name in FILE_NAMES]
        assert max(sizes) <= 8 << 20
        assert min(sizes) > 0
    assert recovered(tmp_path, 56) == [body] * 3


def test_a_journal_that_nobody_empties_is_full(tmp_path: Path) -> None:
    body = os.urandom(1 << 20)
    with journal_in(tmp_path) as (journal, _):
        with pytest.raises(StoreFull, match="finds no place in the journal"):
            for _ in range(100):
                journal.append(body)
        count = journal.number
        assert count < 2 * _journal.MOST >> 20
    assert len(recovered(tmp_path)) == count


def test_a_full_disk_is_an_error_and_leaves_nothing_behind(tmp_path: Path) -> None:
    """A limit on the size of files stands in for the disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with journal_in(tmp_path) as (journal, _):
        journal.append(b"before")
        resource.setrlimit(resource.RLIMIT_FSIZE, (_journal.GROWTH + PAGE, hard))
        try:
            with pytest.raises(StoreFull, match="no space is left for the journal"):
                journal.append(bytes(_journal.GROWTH))
            assert not journal.fits_at_once(b"")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert journal.number == 1
        journal.append(b"after")
    assert recovered(tmp_path) == [b"before", b"after"]


def test_an_empty_journal_takes_no_space(tmp_path: Path) -> None:
    with journal_in(tmp_path) as (journal, _):
        journal.append(b"one")
        journal.settle(journal.number)
        journal.empty()
        assert [(tmp_path / name).stat().st_size for name in FILE_NAMES] == [0, 0]
        journal.append(b"two")
    assert recovered(tmp_path, 1) == [b"two"]


@pytest.mark.parametrize("is_compiled", [False, True])
def test_a_system_that_cannot_sync_in_one_call_syncs_in_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_compiled: bool
) -> None:
    def refuse(*args: object) -> int:
        raise OSError(errno.EOPNOTSUPP, "not supported")

    synced: list[int] = []
    monkeypatch.setattr(_journal, "_compiled", SimpleNamespace(write_synced=refuse) if is_compiled else None)
    monkeypatch.setattr(os, "pwritev", refuse)
    monkeypatch.setattr(os, "fsync", synced.append)
    with open_journal(tmp_path, KEY, is_synced=True) as journal:
        journal.recover(0, may_have_holes=False)
        journal.append(b"one")
        count = len(synced)
        journal.append(b"two")
        assert len(synced) == count + 1
    assert recovered(tmp_path) == [b"one", b"two"]


def test_compiled_code_writes_where_it_is_told_and_says_what_fails(tmp_path: Path) -> None:
    fast = compiled()
    with (tmp_path / "file").open("w+b") as file:
        file.write(b"0123456789")
        file.flush()
        assert fast.write_synced(file.fileno(), b"xyz", 4) > 0
        assert (tmp_path / "file").read_bytes() == b"0123xyz789"
        descriptor = file.fileno()
    with pytest.raises(OSError, match="Bad file descriptor") as caught:
        fast.write_synced(descriptor, b"x", 0)
    assert caught.value.errno == errno.EBADF


@pytest.mark.parametrize(("slow_ones", "is_quick"), [(1, True), (4, False)])
def test_one_slow_write_says_nothing_of_a_disk_and_several_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slow_ones: int, is_quick: bool
) -> None:
    times_s = iter([0.0001] * 20 + [5.0] * slow_ones)
    monkeypatch.setattr(_journal, "_write", lambda *_, **__: next(times_s))
    monkeypatch.setattr(Journal, "_grow", lambda *_: None)
    with open_journal(tmp_path, KEY, is_synced=True) as journal:
        for _ in range(20 + slow_ones):
            journal.append(b"x")
        assert (journal.write_s <= _backlog._AT_ONCE_S) == is_quick
