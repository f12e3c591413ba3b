"""The send path: judge, seal, commit, acknowledge, deliver; and reading messages back."""

import os
from collections.abc import Callable, Sequence
from itertools import islice

import trio

from triolet_core import _permission, speedups
from triolet_core._channels import Channels
from triolet_core._delivery import CROWDED, Lanes
from triolet_core._drafts import drafts_alike, is_plausible
from triolet_core._facts import Facts
from triolet_core._permits import Permits
from triolet_core._send_batch import Done, Judged, SendBatch
from triolet_core._server_judge import ServerJudge
from triolet_core.compat import Compat
from triolet_core.config import MessageConfig, PermissionConfig
from triolet_core.errors import BackendError, Overloaded, StoreClosed, StoreError
from triolet_core.hooks import Hooks, SendRequest
from triolet_core.model import (
    DUP,
    NO_PERSIST,
    SYNC_ONCE,
    ChannelKey,
    ChannelType,
    Device,
    Draft,
    Message,
    MessagePage,
    ReasonCode,
    Receipt,
    TextPage,
    channel_key,
    command_channel,
    new_client_msg_no,
    parent_of,
)
from triolet_core.session import Session
from triolet_core.store import Store, _queries
from triolet_core.store._sealer import Sealer

MAX_PAGE = 10_000
DEFAULT_PAGE = 50
_LAST_SEQ = 2**63
_SUCCESS = int(ReasonCode.SUCCESS)
_compiled = speedups.find(os.environ)


class Messages:
    """Sends and reads messages."""

    def __init__(
        self,
        store: Store,
        channels: Channels,
        lanes: Lanes,
        hooks: Hooks,
        compat: Compat,
        config: MessageConfig,
        permission: PermissionConfig,
        clock_s: Callable[[], float],
        *,
        patience_s: float,
    ) -> None:
        """`patience_s` is how long a send waits for room in the delivery before it is refused as too much."""
        self._store = store
        self._channels = channels
        self._lanes = lanes
        self._patience_s = patience_s
        self._hooks = hooks
        self._compat = compat
        self._config = config
        self._permission = permission
        self._clock_s = clock_s
        self._permits = Permits(channels.known)
        self._server_judge = ServerJudge(channels, hooks, compat)
        self.refused = 0

    # --- sending

    async def submit(self, sender: Device, drafts: Sequence[Draft], done: Done, exclude: Session | None = None) -> None:
        """Judge drafts and queue them for the next commit; `done` is called once, after it, with a receipt each.

        Receipts come in the order of drafts and of calls. Returns as soon as the drafts are queued and waits
        only if facts must be read or asked for or the queue is full. A refused draft has its reason in the
        receipt, one that could not be written SYSTEM_ERROR; no `done` at all means that nobody knows.

        Raises:
            Overloaded: The queue stayed full.
            StoreClosed: The server is stopping.
        """
        verdicts: dict[tuple[str, int], tuple[ChannelKey, int]] = {}
        judged = []
        one_by_one = sender.is_server or self._hooks.authorize_send.is_answered
        for draft, more in drafts_alike(drafts, self._config.max_payload_bytes, one_by_one=one_by_one):
            each = await self._judge(sender, draft, verdicts)
            each.more = more
            judged.append(each)
        self.refused += _refused_among(judged)
        await self._wait_for_room(judged)
        batch = SendBatch(sender.uid, judged, done, exclude, forget=self._channels.forget)
        await self._store.writer.enqueue(batch)

    async def _wait_for_room(self, judged: Sequence[Judged]) -> None:
        for channel in {each.channel for each in judged if self._lanes.is_crowded(each.channel)}:
            with trio.move_on_after(self._patience_s) as scope:
                await self._lanes.wait_for_room(channel)
            if scope.cancelled_caught:
                raise Overloaded("the delivery to a group", CROWDED)

    def submit_nowait(self, sender: Device, drafts: Sequence[Draft], done: Done, exclude: Session | None) -> None:
        """As `submit`, for drafts of a client about whose channels everything is known, which is what usually holds.

        Raises:
            WouldBlock: Something must be read or asked for, or the queue is full. Nothing is queued: call `submit`.
            StoreClosed: The server is stopping.
        """
        if sender.is_server or self._hooks.authorize_send.is_answered:
            raise trio.WouldBlock
        verdicts: dict[tuple[str, int], Judged] = {}
        judged, refused = [], 0
        for draft, more in drafts_alike(drafts, self._config.max_payload_bytes):
            each = self._judge_nowait(sender, draft, verdicts)
            each.more = more
            judged.append(each)
            if each.reason != _SUCCESS:
                refused += 1 + len(more)
            if self._lanes.is_crowded(each.channel):
                raise trio.WouldBlock
        self._store.writer.enqueue_nowait(SendBatch(sender.uid, judged, done, exclude, forget=self._channels.forget))
        self.refused += refused

    def submit_for_server(self, uid: str, drafts: Sequence[Draft], done: Done) -> bool:
        """Do for the server, on behalf of a uid, what `submit` does, if nothing has to be waited for.

        Returns:
            Whether the drafts are queued; if not, nothing was done and `submit` has to.
        """
        judged = []
        refused = 0
        for draft in drafts:
            one = self._server_judge.judge(uid, draft) if is_plausible(draft, self._config.max_payload_bytes) else None
            if one is None or self._lanes.is_crowded(one.channel):
                return False
            judged.append(one)
            refused += one.reason != _SUCCESS
        batch = SendBatch(uid, judged, done, None, forget=self._channels.forget)
        try:
            self._store.writer.enqueue_nowait(batch)
        except (trio.WouldBlock, StoreClosed):
            return False
        self.refused += refused
        return True

    async def send_many(self, sender: Device, drafts: Sequence[Draft]) -> list[Receipt]:
        """Send drafts of one sender, in order; returns a receipt per draft after the commit."""
        answered = trio.Event()
        answers: list[Receipt] = []

        def done(receipts: list[Receipt]) -> None:
            answers.extend(receipts)
            answered.set()

        await self.submit(sender, drafts, done)
        await answered.wait()
        return answers

    async def send(self, sender: Device, draft: Draft) -> Receipt:
        """Send one draft."""
        return (await self.send_many(sender, [draft]))[0]

    async def send_with(self, change: Callable[[Sealer], bool], key: ChannelKey, sender: str, draft: Draft) -> None:
        """Make a change, and tell the members of a channel of it by a command, in one transaction.

        The server tells: nobody's permission to send is asked, and a banned channel hears it too.

        Args:
            change: Makes the change, and may still write into the draft; False if there was nothing to change.
            key: The channel.
            sender: Whom the command is from.
            draft: The command.

        Raises:
            BackendError: The members are not known; nothing is written then.
            StoreError, or what `change` raised; nothing is written then.
        """
        uids = await self._channels.recipients(key)
        channel = key if key.type == ChannelType.TEMP else command_channel(key)
        answered = trio.Event()
        judged = [Judged(draft, channel, ReasonCode.SUCCESS, persist=True, command_for=uids)]
        batch = SendBatch(sender, judged, lambda _: answered.set(), None, before=change)
        await self._store.writer.enqueue(batch)
        await answered.wait()
        if batch.error is not None:
            raise batch.error

    async def judge(self, sender: Device, draft: Draft) -> tuple[ChannelKey, int]:
        """Decide whether a draft would be accepted, without sending it; a plugin may replace its payload.

        Returns:
            (its channel, SUCCESS or the reason to refuse it).
        """
        judged = await self._judge(sender, draft, {})
        return judged.channel, judged.reason

    def new_id(self) -> int:
        """Return a message id for a refusal that never reaches the store."""
        return self._store.ids.block(1)[0]

    async def _judge(
        self, sender: Device, draft: Draft, verdicts: dict[tuple[str, int], tuple[ChannelKey, int]]
    ) -> Judged:
        """Decide on a draft. Not a checkpoint while the facts of its channel are known.

        `verdicts` holds what was decided for the channels of this batch, so that each is looked at once.
        """
        kind = draft.channel_type
        if draft.refusal or not is_plausible(draft, self._config.max_payload_bytes):
            return _refuse(draft)
        verdict = verdicts.get((draft.channel_id, kind))
        if verdict is None:
            verdict = verdicts[draft.channel_id, kind] = await self._verdict(sender, draft)
        key, reason = verdict
        if reason == _SUCCESS and self._hooks.authorize_send.is_answered:
            reason = await self._ask(sender, draft, key)
        if draft.flags & DUP:
            draft.flags &= ~DUP
        if sender.is_server:
            return await self._of_server(draft, key, reason)
        return Judged(draft, key, reason, await self._is_kept(draft, key))

    def _judge_nowait(self, sender: Device, draft: Draft, verdicts: dict[tuple[str, int], Judged]) -> Judged:
        """Decide on a draft by what is known; `verdicts` as in `_judge`."""
        if draft.refusal or not is_plausible(draft, self._config.max_payload_bytes):
            return _refuse(draft)
        draft.flags &= ~DUP
        place = (draft.channel_id, draft.channel_type)
        verdict = verdicts.get(place)
        if verdict is None:
            key, reason, persist = self._verdict_nowait(sender, draft)
            verdict = verdicts[place] = Judged(draft, key, reason, persist)
        is_kept = verdict.persist and not draft.flags & NO_PERSIST
        if verdict.draft is draft and is_kept == verdict.persist:
            return verdict
        return Judged(draft, verdict.channel, verdict.reason, is_kept)

    def _verdict_nowait(self, sender: Device, draft: Draft) -> tuple[ChannelKey, int, bool]:
        """Return the channel, SUCCESS or why not, and whether the channel keeps messages."""
        place = (sender.uid, draft.channel_id, draft.channel_type)
        permit = self._permits.find(place)
        if permit is not None:
            key, persist = permit
            return key, _SUCCESS, persist
        key = channel_key(sender.uid, draft.channel_id, draft.channel_type)
        facts = self._facts_nowait(key)
        reason = self._decide_nowait(sender, draft, key, facts)
        persist = key.type != ChannelType.DATA or facts.exists
        if reason == _SUCCESS:
            self._permits.add(place, (key, persist))
        return key, reason, persist

    async def _of_server(self, draft: Draft, key: ChannelKey, reason: int) -> Judged:
        """A send of the API: it always has a number, and a command goes to the companion channel."""
        draft.client_msg_no = draft.client_msg_no or new_client_msg_no()
        persist = await self._is_kept(draft, key)
        if not persist or not draft.flags & SYNC_ONCE or reason != ReasonCode.SUCCESS:
            return Judged(draft, key, reason, persist)
        try:
            uids = frozenset(draft.to_uids) or await self._channels.recipients(key)
        except BackendError:
            return Judged(draft, key, ReasonCode.SYSTEM_ERROR, persist)
        return Judged(draft, key if key.type == ChannelType.TEMP else command_channel(key), reason, persist, uids)

    async def _is_kept(self, draft: Draft, key: ChannelKey) -> bool:
        """Whether a draft is to be stored; a data channel that only subscriptions made lives in memory."""
        if draft.flags & NO_PERSIST:
            return False
        return key.type != ChannelType.DATA or (await self._facts(key)).exists

    async def _verdict(self, sender: Device, draft: Draft) -> tuple[ChannelKey, int]:
        key = channel_key(sender.uid, draft.channel_id, draft.channel_type)
        try:
            return key, await self._decide(sender, draft, key)
        except (BackendError, StoreError):
            return key, ReasonCode.SYSTEM_ERROR

    async def _facts(self, key: ChannelKey) -> Facts:
        known = self._channels.known
        facts = known.cached(key) or await known.get(key)
        if facts.has_new_members:
            await self._channels.named.follow(key, facts)
        return facts

    def _facts_nowait(self, key: ChannelKey) -> Facts:
        facts = self._channels.known.cached(key)
        if facts is None or facts.has_new_members:
            raise trio.WouldBlock
        return facts

    async def _facts_for(self, sender: Device, key: ChannelKey) -> Facts:
        """Return the facts of a channel; the server and system accounts need no lists, only whether it is closed."""
        try:
            return await self._facts(key)
        except BackendError:
            if not sender.is_server and not self._channels.is_system(sender.uid):
                raise
        info = await self._channels.known.info_in_force(key)
        return Facts(info, True, frozenset(), frozenset(), frozenset())  # noqa: FBT003  # positional by field

    async def _decide(self, sender: Device, draft: Draft, key: ChannelKey) -> int:
        if not sender.is_server and not self._channels.is_system(sender.uid):
            self._channels.check_system_uids()
        facts = await self._facts_for(sender, key)
        is_person = key.type == ChannelType.PERSON
        listed = await self._facts_for(sender, ChannelKey(draft.channel_id, ChannelType.PERSON)) if is_person else facts
        is_member = False if is_person else await self._is_member(key, sender.uid, facts)
        return self._permit(sender, draft.channel_id, key, facts, listed, is_member=is_member)

    def _decide_nowait(self, sender: Device, draft: Draft, key: ChannelKey, facts: Facts) -> int:
        try:
            if not self._channels.is_system(sender.uid):
                self._channels.check_system_uids()
            if key.type == ChannelType.PERSON:
                listed, is_member = self._facts_nowait(ChannelKey(draft.channel_id, ChannelType.PERSON)), False
            else:
                listed, is_member = facts, sender.uid in facts.members
                if not is_member and (key.type == ChannelType.COMMUNITY_TOPIC or self._channels.has_temp_members(key)):
                    raise trio.WouldBlock
        except (BackendError, StoreError):
            raise trio.WouldBlock from None  # `submit` says what that means
        return self._permit(sender, draft.channel_id, key, facts, listed, is_member=is_member)

    def _permit(
        self, sender: Device, channel_id: str, key: ChannelKey, facts: Facts, listed: Facts, *, is_member: bool
    ) -> int:
        """Decide by the facts of a channel, and `listed`, those that hold the lists: of a person the recipient's."""
        own = self._channels.known.person_info(sender.uid)
        is_person = key.type == ChannelType.PERSON
        return _permission.decide(
            _permission.Facts(
                sender=sender.uid,
                channel=key,
                channel_id=channel_id,
                is_server=sender.is_server,
                sender_is_system=self._channels.is_system(sender.uid),
                sender_send_ban=own is not None and own.send_ban,
                info=facts.info,
                recipient_is_system=is_person and self._channels.is_system(channel_id),
                recipient_info=listed.info if is_person else None,
                is_denied=sender.uid in listed.denied,
                is_member=is_member,
                is_allowed=sender.uid in listed.allowed,
                allowlist_is_empty=not listed.allowed,
                whitelist_off_of_person=self._permission.whitelist_off_of_person,
                stores_into_banned_channels=self._compat.stores_into_banned_channels,
                channel_exists=facts.exists,
                create_if_no_exist=self._permission.create_if_no_exist,
            )
        )

    async def _is_member(self, key: ChannelKey, uid: str, facts: Facts) -> bool:
        if uid in facts.members:
            return True
        if key.type == ChannelType.COMMUNITY_TOPIC and (not facts.members or self._compat.topic_admits_parent_members):
            return uid in (await self._facts(parent_of(key))).members
        return self._channels.has_temp_members(key) and uid in await self._channels.members_and_guests(key)

    async def _ask(self, sender: Device, draft: Draft, key: ChannelKey) -> int:
        try:
            verdict = await self._hooks.authorize_send.ask(SendRequest(sender=sender, channel=key, draft=draft))
        except BackendError:
            return ReasonCode.SYSTEM_ERROR
        if verdict is None:
            return ReasonCode.SUCCESS
        if verdict.payload is not None:
            draft.payload = verdict.payload
        return verdict.reason

    # --- reading

    def max_seq(self, key: ChannelKey) -> int:
        """Return the last sequence number of a channel, 0 if there is none."""
        return self._store.read(lambda txn: _queries.max_seq(txn, key), key)

    def by_seqs(self, key: ChannelKey, seqs: Sequence[int]) -> list[Message]:
        """Return the messages with these sequence numbers, missing ones left out."""
        with self._store.snapshot(key) as txn:
            found = (_queries.message_at(txn, key, seq) for seq in seqs)
            return [message for message in found if message is not None and self.is_alive(message)]

    def by_id(self, key: ChannelKey, message_id: int) -> Message | None:
        """Return a message of this channel by its id."""
        message = self._store.read(lambda txn: _queries.message_by_id(txn, message_id), key)
        return message if message is not None and message.channel == key and self.is_alive(message) else None

    def by_client_msg_no(self, key: ChannelKey, client_msg_no: str, *, limit: int = MAX_PAGE) -> Message | None:
        """Return the newest message with this number among the newest `limit` of a channel."""
        with self._store.snapshot(key) as txn:
            for message in islice(_queries.messages_back(txn, key, 2**63), limit):
                if message.client_msg_no == client_msg_no and self.is_alive(message):
                    return message
        return None

    def sync(self, key: ChannelKey, *, start: int, end: int, limit: int, newer: bool) -> MessagePage:
        """Return a page of history, rising by seq (http-api.md, section 6.6).

        Args:
            key: The channel; an unknown one gives an empty page.
            start: First seq, inclusive; with `end` 0 too: the newest messages, whatever `newer` says.
            end: Bound in the direction of reading, exclusive; 0 for none.
            limit: Most messages; 0 or less is 50, more than 10,000 is 10,000.
            newer: Read upwards from `start` instead of downwards.
        """
        limit = _page_size(limit)
        upwards = newer and (start > 0 or end > 0)
        with self._store.snapshot(key) as txn:
            if upwards:
                alive = filter(self.is_alive, _queries.messages_from(txn, key, start))
                found = [message for message in islice(alive, limit + 1) if message.seq < (end or 2**63)]
            else:
                top = 0 if end and not start else start or 2**63
                alive = filter(self.is_alive, _queries.messages_back(txn, key, top))
                found = [message for message in islice(alive, limit + 1) if message.seq > end]
        more = len(found) > limit
        found = found[:limit]
        if not upwards:
            found.reverse()
        return MessagePage(messages=tuple(found), more=more)

    def sync_text(self, key: ChannelKey, *, start: int, end: int, limit: int, newer: bool) -> TextPage | None:
        """Return what `sync` does, as JSON text of message objects; None where Python has to build them.

        That is without the compiled functions, or if a message on the page has an expiry or was changed after it was
        sent.
        """
        if _compiled is None:
            return None
        limit = _page_size(limit)
        upwards = newer and (start > 0 or end > 0)
        if upwards:
            first = start
            between = (start, end - 1 if end else _LAST_SEQ)
        else:
            first = 0 if end and not start else start or _LAST_SEQ
            between = (end + 1, first)
        run = self._store.read(lambda txn: _queries.raw_run(txn, key, first, limit + 1, upwards=upwards), key)
        if run is None:
            prefix, rows = self._store.read(
                lambda txn: _queries.raw_page(txn, key, first, limit + 1, upwards=upwards), key
            )
            found = _compiled.page_text(rows, prefix, key.id, key.type, between=between, limit=limit)
        else:
            seq, records = run
            found = _compiled.run_text(records, seq, key.id, key.type, upwards=upwards, between=between, limit=limit)
        return None if found is None else TextPage(*found)

    def is_alive(self, message: Message) -> bool:
        """Whether a message has not expired."""
        return not message.expire or message.timestamp + message.expire > self._clock_s()


def _page_size(limit: int) -> int:
    return min(limit, MAX_PAGE) if limit > 0 else DEFAULT_PAGE


def _refuse(draft: Draft) -> Judged:
    reason = draft.refusal or ReasonCode.CHANNEL_ID_ERROR
    return Judged(draft, ChannelKey("", draft.channel_type), reason, persist=False)


def _refused_among(judged: Sequence[Judged]) -> int:
    return sum([1 + len(each.more) for each in judged if each.reason != _SUCCESS])
