"""What may be done to stored messages: recall, edit, delete. Ours; no reference server has it."""

from typing import ClassVar

import attrs

from triolet_api._call import Call, PersonTarget, post
from triolet_api._errors import ApiError
from triolet_api._fields import Needs, Number, Numbers, Text, field
from triolet_api.routes._send import ContentBody
from triolet_core import NotFound, Revision

MAX_DELETED = 10_000


@attrs.frozen(kw_only=True)
class RecallBody(PersonTarget):
    """A message that is taken back."""

    message_id: int = field(Number(missing="message_id不能为空！"))
    from_uid: str = field(Text(doc="who takes it back; shown to the members"))


@attrs.frozen(kw_only=True)
class EditBody(RecallBody, ContentBody):
    """A message and its new payload."""


@attrs.frozen(kw_only=True)
class DeleteBody(PersonTarget):
    """Messages that are deleted: by number, by id, or from one number to another."""

    NEEDS: ClassVar[Needs] = (("message_seqs", "message_ids", "start_message_seq"),)

    message_seqs: list[int] = field(Numbers(low=1))
    message_ids: list[int] = field(Numbers())
    start_message_seq: int = field(Number(doc="inclusive"))
    end_message_seq: int = field(Number(doc="inclusive"))


@attrs.frozen(kw_only=True)
class RevisionData:
    """What was done: 1 recalled, 2 edited; `version` counts the changes of the message."""

    message_id: int
    message_idstr: str
    kind: int
    at: int
    version: int


@attrs.frozen(kw_only=True)
class RevisionAnswer:
    """What was done."""

    status: int = 200
    data: RevisionData


@attrs.frozen(kw_only=True)
class Deleted:
    """How many messages there were."""

    status: int = 200
    deleted: int


async def recall(call: Call, body: RecallBody) -> RevisionAnswer:
    """Take a message back: its payload is deleted, devices are told."""
    by = body.from_uid or body.login_uid
    try:
        revision = await call.broker.revisions.recall(body.key, body.message_id, by=by)
    except NotFound as exc:
        raise ApiError(str(exc), status=404, code="not_found") from None
    return _answer(body.message_id, revision)


async def edit(call: Call, body: EditBody) -> RevisionAnswer:
    """Replace the payload of a message, and tell devices."""
    by = body.from_uid or body.login_uid
    try:
        revision = await call.broker.revisions.edit(body.key, body.message_id, body.data(call), by=by)
    except NotFound as exc:
        raise ApiError(str(exc), status=404, code="not_found") from None
    return _answer(body.message_id, revision)


def _answer(message_id: int, revision: Revision) -> RevisionAnswer:
    return RevisionAnswer(
        data=RevisionData(
            message_id=message_id,
            message_idstr=str(message_id),
            kind=int(revision.kind),
            at=revision.at,
            version=revision.version,
        )
    )


async def delete(call: Call, body: DeleteBody) -> Deleted:
    """Delete messages for good, and tell devices; their sequence numbers are not used again."""
    key, revisions, stored = body.key, call.broker.revisions, call.broker.messages
    if body.start_message_seq or body.end_message_seq:
        if not 0 < body.start_message_seq <= body.end_message_seq:
            raise ApiError("start_message_seq, end_message_seq: 0 < start ≤ end", code="bad_field")
        return Deleted(deleted=await revisions.delete_range(key, body.start_message_seq, body.end_message_seq))
    found = [stored.by_id(key, message_id) for message_id in body.message_ids]
    seqs = [*body.message_seqs, *(message.seq for message in found if message is not None)]
    if not body.message_seqs and not body.message_ids:
        raise ApiError("message_seqs, message_ids, or a range", code="missing_field")
    return Deleted(deleted=await revisions.delete(key, seqs) if seqs else 0)


ROUTES = (
    post("/message/recall", recall, RecallBody, RevisionAnswer, resource="message"),
    post("/message/edit", edit, EditBody, RevisionAnswer, resource="message"),
    post("/message/delete", delete, DeleteBody, Deleted, resource="message"),
)
