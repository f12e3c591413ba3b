"""Questions to the data source: kept answers, one request per question at a time, and what counts as a failure.

Theory of operation. A question is answered from the cache while the kept answer is fresh. Otherwise it joins the flight
that is under way for it, or starts one: a task in the plugin's nursery, so that an asker who gives up costs the others
nothing. A flight that ends well leaves its answer in the cache; one that fails is logged once and counts in the
breaker, and every asker gets the failure. While the breaker is open questions fail at once. What an asker makes of a
failure is decided per kind of question (`fall_back`).

Core keeps what it concludes from answers. So it is told to forget a channel when one of its answers is too old, has
been pushed out of the cache, is invalidated, or was a failure answer and the pause of the breaker is over.
"""

from collections.abc import Mapping

import attrs
import trio
from structlog.typing import FilteringBoundLogger

from triolet_core import BackendError, Broker, ChannelKey
from triolet_datasource._breaker import Breaker, State
from triolet_datasource._cache import Answers, Kept, Timetable
from triolet_datasource._client import AskFailed, Client
from triolet_datasource._config import DatasourceConfig
from triolet_datasource._questions import ABOUT_CHANNELS, SYSTEM_UIDS, Answer, Kind, Question

NAME = "datasource"
_CHANNEL_TYPES = range(1, 256)
_SLICE = 1_000
"""Channels forgotten between two checkpoints."""


@attrs.define(eq=False)
class _Flight:
    """One request under way; it fails unless it says otherwise."""

    done: trio.Event = attrs.Factory(trio.Event)
    answer: Answer = None
    failure: str | None = "the server is stopping"


@attrs.define(eq=False)
class _Counts:
    requests_total: int = 0
    failures_total: int = 0
    cache_hits_total: int = 0
    refused_by_breaker_total: int = 0
    failure_answers_total: int = 0


class Source:
    """The data source as the plugin sees it. `flight_nursery` is where requests run; it belongs to the plugin."""

    def __init__(
        self,
        client: Client,
        config: DatasourceConfig,
        broker: Broker,
        log: FilteringBoundLogger,
        flight_nursery: trio.Nursery,
    ) -> None:
        self._client = client
        self._config = config
        self._channels = broker.channels
        self._log = log
        self._flight_nursery = flight_nursery
        self._answers = Answers(most=config.cache_entries, on_evicted=self._forget)
        self._system_answer: Kept | None = None
        self._flights: dict[Question, _Flight] = {}
        self._breaker = Breaker(failures=config.breaker_failures, pause_s=config.breaker_pause)
        self._too_old: Timetable[Question] = Timetable(config.cache_ttl)
        self._provisional: Timetable[Question] = Timetable(config.breaker_pause)
        self._wake = trio.Event()
        self._counts = _Counts()
        self.system_uids_wanted = trio.Event()
        """Set when the system accounts are to be asked for at once."""

    # --- asking

    async def ask(self, question: Question) -> Answer:
        """Return a fresh answer, kept or asked for. Not a checkpoint if it is kept.

        Raises:
            BackendError: There is none; it has been logged.
        """
        kept = self._kept(question)
        if kept is None or kept.fresh_until <= trio.current_time():
            return await self.ask_anew(question)
        self._counts.cache_hits_total += 1
        return kept.answer

    async def ask_anew(self, question: Question) -> Answer:
        """Return the answer of the request under way, or of a new one.

        Raises:
            BackendError: It failed, or the breaker is open.
        """
        flight = self._flights.get(question) or self._start(question)
        await flight.done.wait()
        if flight.failure is not None:
            raise BackendError(NAME, flight.failure)
        return flight.answer

    def is_fresh(self, question: Question) -> bool:
        """Whether a question has an answer that is not too old."""
        kept = self._kept(question)
        return kept is not None and trio.current_time() < kept.fresh_until

    def has_known(self, question: Question) -> bool:
        """Whether a question has been answered, however long ago."""
        return self._kept(question) is not None

    def _kept(self, question: Question) -> Kept | None:
        return self._system_answer if question == SYSTEM_UIDS else self._answers.get(question)

    def _start(self, question: Question) -> _Flight:
        if not self._breaker.admit(trio.current_time()):
            self._counts.refused_by_breaker_total += 1
            raise BackendError(NAME, "it has failed too often and is left alone for a while (datasource.breakerPause)")
        flight = _Flight()
        self._flight_nursery.start_soon(self._fly, question, flight)
        self._flights[question] = flight
        return flight

    async def _fly(self, question: Question, flight: _Flight) -> None:
        self._counts.requests_total += 1
        try:
            self._keep(question, flight, await self._client.ask(question))
        except trio.Cancelled:
            self._breaker.abandoned()
            raise
        except Exception as exc:  # a supervisor: whatever it is, this question has failed and the others go on
            self._fail(question, flight, exc)
        finally:
            if self._flights.get(question) is flight:
                del self._flights[question]
            flight.done.set()

    def _keep(self, question: Question, flight: _Flight, answer: Answer) -> None:
        flight.answer, flight.failure = answer, None
        if self._breaker.succeeded():
            self._log.info("datasource answers again")
        if self._flights.get(question) is not flight:
            return  # invalidated while it was asked: who waited gets it, nobody else
        now = trio.current_time()
        kept = Kept(answer, now + self._config.cache_ttl)
        if question == SYSTEM_UIDS:
            self._system_answer = kept
            return
        self._answers.put(question, kept)
        self._too_old.note(question, now)
        self._wake.set()

    def _fail(self, question: Question, flight: _Flight, exc: Exception) -> None:
        flight.failure = str(exc) if isinstance(exc, AskFailed) else f"unexpected {type(exc).__name__}"
        self._counts.failures_total += 1
        unexpected = None if isinstance(exc, AskFailed) else exc
        self._log.warning("datasource failed", question=question.kind.value, detail=flight.failure, exc_info=unexpected)
        if self._breaker.failed(trio.current_time()):
            pause_s = self._config.breaker_pause
            self._log.warning("datasource is left alone", failures=self._config.breaker_failures, pause_s=pause_s)

    def fall_back(self, question: Question, choice: str) -> Answer:
        """Return what counts as the answer to a failed question: the last known one, or None for the own store.

        Raises:
            BackendError: The choice is to refuse, or there is no last known answer.
        """
        kept = self._kept(question)
        if choice == "refuse" or (choice == "last" and kept is None):
            raise BackendError(NAME, f"no answer to {question.kind.value}")
        self._counts.failure_answers_total += 1
        self._provisional.note(question, trio.current_time())
        self._wake.set()
        return kept.answer if choice == "last" and kept is not None else None

    # --- forgetting

    def invalidate(self, channel_id: str | None, channel_type: int | None) -> None:
        """Forget answers, also as last known ones, so that they are asked for again.

        Args:
            channel_id: The channel, or the uid whose lists or info; None is everything, system accounts included.
            channel_type: Its type; None is every type, and the info of the user with that id.
        """
        if channel_id is None:
            self._invalidate_all()
            return
        if channel_type is None:
            self._drop(Question(Kind.USER_INFO, channel_id))
        for each in _CHANNEL_TYPES if channel_type is None else (channel_type,):
            for kind in ABOUT_CHANNELS:
                self._drop(Question(kind, channel_id, each))
            self._channels.forget(ChannelKey(channel_id, each))

    def _invalidate_all(self) -> None:
        self._answers.clear()
        self._system_answer = None
        self._flights.clear()
        self._channels.forget_all()
        self.system_uids_wanted.set()

    def _drop(self, question: Question) -> None:
        self._answers.drop(question)
        self._flights.pop(question, None)

    def _forget(self, question: Question) -> None:
        if question.kind in ABOUT_CHANNELS:
            self._channels.forget(ChannelKey(question.id, question.channel_type))

    async def forget_what_is_too_old(self) -> None:
        """Let core forget what it has concluded from answers that are no longer fresh, for ever."""
        while True:
            now = trio.current_time()
            due = self._too_old.take(now, _SLICE) + self._provisional.take(now, _SLICE)
            for question in due:
                self._forget(question)
            if due:
                await trio.lowlevel.checkpoint()
                continue
            self._wake = trio.Event()
            with trio.move_on_at(min(self._too_old.first, self._provisional.first)):
                await self._wake.wait()

    def statistics(self) -> Mapping[str, int | float]:
        """Return the counters and the present size of the cache."""
        sizes = {"kept_answers": len(self._answers), "kept_weight": self._answers.weight}
        return {**attrs.asdict(self._counts), **sizes, "breaker_is_open": int(self._breaker.state is not State.CLOSED)}
