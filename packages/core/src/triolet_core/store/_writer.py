"""The single writer: collects work, commits it in groups, tells whoever waits.

One sync for everything that is waiting; nothing waits when the writer is idle. A batch is run first without a
transaction, on the loop: what it puts goes to the journal and the backlog. If any of it needs a transaction, or fails,
the whole batch is run inside one, in a thread, behind everything in the backlog. If one piece of work raises there,
the transaction is aborted and the batch is run again piece by piece, so that only the culprit fails.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

import attrs
import lmdb
import structlog
import trio

from triolet_core.errors import Overloaded, StoreClosed, StoreError, StoreFull
from triolet_core.store._backlog import Backlog
from triolet_core.store._sealer import Sealer

R = TypeVar("R")
_MOST_AT_ONCE = 256
"""Messages that are committed on the spot at most; more have the writer's task to themselves, and others a turn."""


class Work(Protocol):
    """Something to be done in a write transaction."""

    @property
    def weight(self) -> int:
        """How many messages it counts as."""
        ...

    def run(self, sealer: Sealer) -> None:
        """Do it, on the loop or in a thread. May run again from the start after an abort."""
        ...

    def finish(self, error: Exception | None) -> None:
        """Called once on the loop: after the commit (None) or with what went wrong. Must not raise."""
        ...


class AfterCommit(Protocol):
    """Called on the loop with each committed batch, in commit order."""

    async def __call__(self, batch: Sequence[Work]) -> None:
        """Hand the batch on; waiting here slows the senders down."""
        ...

    @property
    def is_ready(self) -> bool:
        """Whether `at_once` may be called now."""
        ...

    def at_once(self, batch: Sequence[Work]) -> None:
        """Hand the batch on without waiting."""
        ...


class NothingFollows:
    """What follows a commit where nobody wants to know."""

    is_ready = True

    async def __call__(self, batch: Sequence[Work]) -> None:
        """Go on."""

    def at_once(self, batch: Sequence[Work]) -> None:
        """Go on."""


class Turn:
    """While it is entered, what is queued waits for its end, and is then committed on the spot if nothing has to wait.

    That takes two passes of the scheduler from each message that comes alone.
    """

    def __init__(self, writer: "Writer") -> None:
        self._writer = writer

    def __enter__(self) -> None:
        self._writer.begin_turn()

    def __exit__(self, *_: object) -> None:
        self._writer.end_turn()


@attrs.define(eq=False)
class Change(Generic[R]):
    """Work with a result for one waiting caller."""

    function: Callable[[Sealer], R]
    after: Callable[[], None] | None = None
    weight: int = 1
    done: trio.Event = attrs.Factory(trio.Event)
    result: R | None = None
    error: Exception | None = None

    def run(self, sealer: Sealer) -> None:
        """Call the function."""
        self.result = self.function(sealer)

    def finish(self, error: Exception | None) -> None:
        """Say that it is done, and wake the caller."""
        self.error = error
        self.done.set()
        if error is None and self.after is not None:
            self.after()


class Writer:
    """Owns the write side of one environment."""

    def __init__(
        self,
        env: lmdb.Environment,
        sealer: Sealer,
        backlog: Backlog,
        *,
        queue_limit: int,
        queue_timeout_s: float,
        max_batch: int,
    ) -> None:
        self._env = env
        self._sealer = sealer
        self._backlog = backlog
        self._queue: deque[Work] = deque()
        self._queue_limit = queue_limit
        self._queue_timeout_s = queue_timeout_s
        self._max_batch = max_batch
        self._weight = 0
        self._wake = trio.Event()
        self._room = trio.lowlevel.ParkingLot()
        self._waiting = 0
        """Tasks that wait for room, or were woken and have not gone on yet."""
        self._idle = trio.lowlevel.ParkingLot()
        self._limiter = trio.CapacityLimiter(1)
        self._log = structlog.get_logger("store")
        self._is_busy = False
        self._turns = 0
        self._follow: AfterCommit = NothingFollows()
        self._broken: Exception | None = None
        self.turn = Turn(self)
        self.is_closed = False
        self.is_full = False
        """Whether the last commit found no space."""
        self.commits = 0
        self.committed_weight = 0

    @property
    def queued(self) -> int:
        """Messages that wait for a commit."""
        return self._weight

    async def enqueue(self, work: Work) -> None:
        """Add work in order; waits while the queue is full.

        Not a checkpoint unless it waits. Once added, the work is done even if the caller is cancelled.

        Raises:
            Overloaded: The queue stayed full for `store.queueTimeout`.
            StoreClosed: The store is closing.
        """
        if self._weight >= self._queue_limit or self._waiting:
            self._waiting += 1
            try:
                with trio.move_on_after(self._queue_timeout_s) as scope:
                    while self._weight >= self._queue_limit and not self.is_closed:
                        await self._room.park()
            finally:
                self._waiting -= 1
            if scope.cancelled_caught:
                raise Overloaded("the store's queue (store.queueLimit)", self._queue_limit)
        self._append(work)

    def enqueue_nowait(self, work: Work) -> None:
        """Add work in order.

        Raises:
            WouldBlock: The queue is full.
            StoreClosed: The store is closing.
        """
        if self._weight >= self._queue_limit or self._waiting:
            raise trio.WouldBlock
        self._append(work)

    def _append(self, work: Work) -> None:
        if self.is_closed:
            raise StoreClosed("the store is closed")
        self._queue.append(work)
        self._weight += work.weight
        if not self._turns:
            self._wake.set()

    def begin_turn(self) -> None:
        """See `Turn`."""
        self._turns += 1

    def end_turn(self) -> None:
        """See `Turn`."""
        self._turns -= 1
        if self._queue and not self._turns and not self._commit_now():
            self._wake.set()

    async def change(self, function: Callable[[Sealer], R], *, after: Callable[[], None] | None = None) -> R:
        """Run a function in a write transaction and return its result once that is durable.

        `after` is called on the loop right after the commit, also if the caller was cancelled meanwhile.

        Raises:
            StoreFull, StoreError, Overloaded, or what the function raised; nothing is written then.
        """
        work = Change(function, after)
        await self.enqueue(work)
        await work.done.wait()
        if work.error is not None:
            raise work.error
        return work.result  # type: ignore[return-value]  # set by run, as the error is not

    async def flush(self) -> None:
        """Wait until nothing is queued or under way."""
        while self._queue or self._is_busy:
            await self._idle.park()

    async def run(self, after_commit: AfterCommit, *, task_status: trio.TaskStatus[None]) -> None:
        """Commit for ever. When cancelled, what is under way is finished and the rest fails with StoreClosed."""
        self._follow = after_commit
        task_status.started()
        try:
            while True:
                if self._broken is not None:
                    raise self._broken
                if not self._queue:
                    self._idle.unpark_all()
                    self._wake = trio.Event()
                    await self._wake.wait()
                    continue
                batch = self._take()
                self._is_busy = True
                try:
                    with trio.CancelScope(shield=True):  # only threads are waited for, which end by themselves
                        await self._commit(batch)
                    if after_commit.is_ready and sum(work.weight for work in batch) <= _MOST_AT_ONCE:
                        after_commit.at_once(batch)
                    else:
                        await after_commit(batch)
                finally:
                    self._is_busy = False
                    del batch  # or it would keep its senders until the next one comes
        finally:
            self.is_closed = True
            for work in self._queue:
                work.finish(StoreClosed("the store is closed"))
            self._queue.clear()
            self._weight = 0
            self._room.unpark_all()
            self._idle.unpark_all()

    def _take(self) -> list[Work]:
        batch: list[Work] = []
        weight = 0
        while self._queue and weight < self._max_batch:
            work = self._queue.popleft()
            weight += work.weight
            batch.append(work)
        self._weight -= weight
        if self._waiting:
            self._room.unpark_all()
        return batch

    def _commit_now(self) -> bool:
        """Commit what is queued, if that takes no waiting; False, and nothing is changed, if it may."""
        if self._is_busy or self.is_full or self._weight > _MOST_AT_ONCE or not self._backlog.is_quick:
            return False
        if self.is_closed or self._broken is not None or not self._follow.is_ready:
            return False
        batch = self._take()
        self._is_busy = True
        try:
            if not self._journal_now(batch):
                self._queue.extendleft(reversed(batch))
                self._weight += sum(work.weight for work in batch)
                return False
            if self._broken is None:
                for work in batch:
                    self._finish(work, None)
                self._follow.at_once(batch)
        finally:
            self._is_busy = False
        self._idle.unpark_all()
        return not self._queue

    def _journal_now(self, batch: list[Work]) -> bool:
        """As `_journal`, if the record can be written on the spot."""
        sealer = self._sealer
        if not self._run(batch):
            return False
        try:
            is_done = not sealer.rows or self._backlog.add_now(sealer.rows, sealer.touched)
        except StoreFull:
            is_done = False
        except Exception as exc:  # whether the batch is on disk is unknown: nobody is told anything, the server stops
            self._broken = exc
            self._wake.set()
            return True
        if not is_done:
            sealer.rollback()
            return False
        sealer.commit()
        self.commits += 1
        return True

    async def _commit(self, batch: list[Work]) -> None:
        if not self.is_full and await self._journal(batch):
            for work in batch:
                self._finish(work, None)
            return
        async with self._backlog.turn:
            self._backlog.take()
            errors = await self._transact(batch)
        self.is_full = any(isinstance(error, StoreFull) for error in errors)
        for work, error in zip(batch, errors, strict=True):
            self._finish(work, error)

    async def _journal(self, batch: list[Work]) -> bool:
        """Run a batch without a transaction; False, and nothing is changed, if that cannot be done."""
        sealer = self._sealer
        if not self._run(batch):
            return False
        try:
            if sealer.rows:
                await self._backlog.add(sealer.rows, sealer.touched)
        except StoreFull:
            sealer.rollback()
            return False
        sealer.commit()
        self.commits += 1
        return True

    def _run(self, batch: list[Work]) -> bool:
        """Run a batch without a transaction; False if it needs one."""
        sealer = self._sealer
        try:
            sealer.begin(None)
            for work in batch:
                work.run(sealer)
        except Exception:  # whatever it is comes again, or not, in the transaction
            sealer.rollback()
            return False
        return True

    async def _transact(self, batch: list[Work]) -> list[Exception | None]:
        """Run a batch in a transaction; if it fails, run its pieces in one each. Returns what each failed with."""
        error = await trio.to_thread.run_sync(self._try, batch, limiter=self._limiter)
        if error is None or len(batch) == 1:
            return [error] * len(batch)
        return [await trio.to_thread.run_sync(self._try, [work], limiter=self._limiter) for work in batch]

    def _finish(self, work: Work, error: Exception | None) -> None:
        if error is None:
            self.committed_weight += work.weight
        try:
            work.finish(error)
        except Exception:  # a receiver's bug must not stop the one writer
            self._log.exception("the receiver of a commit failed")

    def _try(self, batch: list[Work]) -> Exception | None:
        """Run a batch in one transaction, behind what is in the backlog; runs in a thread.

        Returns what made it fail, after an abort. An error of the commit itself is raised: whether the batch is
        on disk is then unknown, nobody may be told anything, and the server has to stop.
        """
        with self._backlog.gate():
            try:
                txn = self._env.begin(write=True)
            except lmdb.Error as exc:
                return _store_error(exc)
            try:
                number = self._backlog.put(txn)
                self._sealer.begin(txn)
                for work in batch:
                    work.run(self._sealer)
            except Exception as exc:
                txn.abort()
                self._sealer.rollback()
                return _store_error(exc) if isinstance(exc, lmdb.Error) else exc
            try:
                txn.commit()
            except (lmdb.MapFullError, lmdb.DiskError) as exc:
                self._sealer.rollback()
                return _store_error(exc)
            self._sealer.commit()
            self._backlog.done(number)
        self.commits += 1
        return None


def _store_error(exc: lmdb.Error) -> StoreError:
    if isinstance(exc, (lmdb.MapFullError, lmdb.DiskError)):
        return StoreFull(f"no space is left for the store (store.mapSize, or the disk): {exc}")
    return StoreError(f"the store refused a write: {exc}")
