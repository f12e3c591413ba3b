"""What core asks, turned into questions to the data source, and answers turned into what core takes."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Protocol, TypeVar

import attrs

from triolet_core import ChannelInfo, ChannelKey, UserInfo
from triolet_core.compat import Profile
from triolet_core.hooks import Ask
from triolet_core.plugin import PluginContext
from triolet_datasource._config import DatasourceConfig
from triolet_datasource._questions import SYSTEM_UIDS, Answer, GivenInfo, Kind, Question
from triolet_datasource._source import NAME, Source

_ASK_GRACE_S = 1.0
"""How much longer core waits than a request may take: if that is not enough it is this plugin that hangs."""
_ASKERS = 4096
"""Most senders that wait for the answers to one question of core; they share requests, which are bounded themselves."""


Q = TypeVar("Q")
A = TypeVar("A")
Q_contra = TypeVar("Q_contra", contravariant=True)
A_co = TypeVar("A_co", covariant=True)


class _Responder(Protocol[Q_contra, A_co]):
    """Answers one question of core."""

    async def answer(self, question: Q_contra, /) -> A_co | None:
        """Ask the data source."""
        ...

    def fall_back(self, question: Q_contra, /) -> A_co | None:
        """Return what counts when that failed."""
        ...


@attrs.frozen(eq=False)
class _Lists:
    """Members, or one of the two lists."""

    source: Source
    kind: Kind
    on_failure: str

    async def answer(self, key: ChannelKey) -> tuple[str, ...] | None:
        return _uids(await self.source.ask(self._question(key)))

    def fall_back(self, key: ChannelKey) -> tuple[str, ...] | None:
        return _uids(self.source.fall_back(self._question(key), self.on_failure))

    def _question(self, key: ChannelKey) -> Question:
        return Question(self.kind, key.id, key.type)


@attrs.frozen(eq=False)
class _SystemUids:
    """System accounts. They are kept by core, so each question is a request."""

    source: Source
    on_failure: str

    async def answer(self, question: None) -> tuple[str, ...] | None:
        return _uids(await self.source.ask_anew(SYSTEM_UIDS))

    def fall_back(self, question: None) -> tuple[str, ...] | None:
        is_unknown = self.on_failure == "last" and not self.source.has_known(SYSTEM_UIDS)
        return _uids(self.source.fall_back(SYSTEM_UIDS, "pass" if is_unknown else self.on_failure))


@attrs.frozen(eq=False)
class _ChannelInfos:
    """Channel info: what the data source names takes the place of what is stored, the rest stays."""

    context: PluginContext[DatasourceConfig]
    source: Source
    kind: Kind

    async def answer(self, key: ChannelKey) -> ChannelInfo | None:
        return self._over_stored(key, await self.source.ask(self._question(key)))

    def fall_back(self, key: ChannelKey) -> ChannelInfo | None:
        on_failure = self.context.config.on_failure_channel_info
        return self._over_stored(key, self.source.fall_back(self._question(key), on_failure))

    def _question(self, key: ChannelKey) -> Question:
        return Question(self.kind, key.id, key.type)

    def _over_stored(self, key: ChannelKey, answer: Answer) -> ChannelInfo | None:
        if not isinstance(answer, GivenInfo):
            return None
        return answer.over(self.context.broker.channels.info(key) or ChannelInfo())


@attrs.frozen(eq=False)
class _UserInfos:
    """User info: nothing depends on it, so a failure is the last known info or none."""

    source: Source

    async def answer(self, uid: str) -> UserInfo | None:
        return _user(await self.source.ask(Question(Kind.USER_INFO, uid)))

    def fall_back(self, uid: str) -> UserInfo | None:
        question = Question(Kind.USER_INFO, uid)
        return _user(self.source.fall_back(question, "last" if self.source.has_known(question) else "pass"))


def _uids(answer: Answer) -> tuple[str, ...] | None:
    return answer if isinstance(answer, tuple) else None


def _user(answer: Answer) -> UserInfo | None:
    return answer if isinstance(answer, UserInfo) else None


@contextmanager
def answer_core(context: PluginContext[DatasourceConfig], source: Source) -> Iterator[None]:
    """Answer core's questions for the length of the block."""
    config, hooks = context.config, context.hooks
    with ExitStack() as stack:

        def answer(ask: Ask[Q, A], by: _Responder[Q, A]) -> None:
            deadline_s = config.timeout + _ASK_GRACE_S
            stack.enter_context(
                ask.responder(NAME, by.answer, on_failure=by.fall_back, deadline_s=deadline_s, in_flight=_ASKERS)
            )

        answer(hooks.subscribers, _Lists(source, Kind.SUBSCRIBERS, config.on_failure_subscribers))
        answer(hooks.denylist, _Lists(source, Kind.DENYLIST, config.on_failure_denylist))
        answer(hooks.allowlist, _Lists(source, Kind.ALLOWLIST, config.on_failure_allowlist))
        answer(hooks.system_uids, _SystemUids(source, config.on_failure_system_uids))
        if config.channel_info_on:
            answer(hooks.channel_info, _ChannelInfos(context, source, _channel_info_kind(context)))
        if config.user_info_on:
            answer(hooks.user_info, _UserInfos(source))
        yield


def _channel_info_kind(context: PluginContext[DatasourceConfig]) -> Kind:
    form = context.config.channel_info_form
    if form == "auto":
        form = "post" if context.broker.config.compat.profile == Profile.WUKONGIM_1.value else "get"
    return Kind.CHANNEL_FLAGS if form == "post" else Kind.CHANNEL_INFO
