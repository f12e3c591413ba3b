"""What the chat's screen shows."""

import pytest

from triolet_client import Channel, Message, Reason, Receipt
from triolet_client.chat._rooms import LINES, Rooms, answered, channel_of, last_row, printable, sidebar, talk

BOB, TEAM = Channel.person("bob"), Channel.group("team")


def arrived(seq: int, text: str = "hi", channel: Channel = BOB, *, sender: str = "bob", at: int = 0) -> Message:
    return Message(
        message_id=seq,
        seq=seq,
        channel=channel,
        from_uid=sender,
        client_msg_no=f"{channel.id}-{seq}",
        timestamp=1_700_000_000 + (at or seq),
        payload=text.encode(),
    )


def shown(fragments: list[tuple[str, str]]) -> str:
    return "".join(text for _, text in fragments)


def rooms_of(*messages: Message) -> Rooms:
    rooms = Rooms("ann")
    for each in messages:
        rooms.arrived(each)
    return rooms


def test_what_arrives_elsewhere_is_counted_until_the_room_is_opened() -> None:
    rooms = rooms_of(arrived(1), arrived(2), arrived(3, channel=TEAM, sender="cay"))
    assert [(room.name, room.unread) for room in rooms.all] == [("bob", 2), ("#team", 1)]
    assert " bob                 2\n" in shown(sidebar(rooms, 22))
    rooms.open(BOB)
    assert [room.unread for room in rooms.all] == [0, 1]
    rooms.arrived(arrived(4))
    rooms.arrived(arrived(5, sender="ann", channel=TEAM))
    assert [room.unread for room in rooms.all] == [0, 1]


def test_lines_stand_in_order_and_once() -> None:
    rooms = rooms_of(arrived(3, "three"), arrived(1, "one"), arrived(2, "two"), arrived(3, "three"))
    rooms.open(BOB)
    text = shown(talk(rooms))
    assert [text.count(word) for word in ("one", "two", "three")] == [1, 1, 1]
    assert text.index("one") < text.index("two") < text.index("three")
    assert text.startswith("── ")


def test_within_a_second_lines_stand_in_the_order_of_the_channel() -> None:
    """Also those that are read back later; what is still being sent stands last."""
    rooms = rooms_of(arrived(4, at=9), arrived(5, at=9))
    room = rooms.open(BOB)
    own = rooms.sending(room, "mine", "n1")
    own.timestamp = 1_700_000_009
    rooms.loaded(room, [arrived(seq, at=9) for seq in (1, 2, 3)])
    rooms.arrived(arrived(6, at=9))
    assert [line.seq for line in room.lines[:-1]] == [1, 2, 3, 4, 5, 6]
    assert room.lines[-1] is own


def test_a_room_is_bounded() -> None:
    rooms = rooms_of(*(arrived(seq) for seq in range(1, LINES + 11)))
    [room] = rooms.all
    assert (len(room.lines), room.first_seq) == (LINES, 11)


def test_an_own_message_shows_what_became_of_it() -> None:
    rooms = Rooms("ann")
    room = rooms.open(BOB)
    line = rooms.sending(room, "hello", "n1")
    assert "ann  hello  …" in shown(talk(rooms))
    answered(line, Receipt(reason=Reason.SUCCESS, message_id=1, seq=1, client_msg_no="n1"))
    assert "ann  hello  ✓" in shown(talk(rooms))
    answered(line, Receipt(reason=Reason.IN_BLACKLIST, message_id=1, seq=0, client_msg_no="n1"))
    assert "ann  hello  ✗ in blacklist" in shown(talk(rooms))


def test_scrolling_leaves_the_newest_out_and_says_so() -> None:
    rooms = rooms_of(*(arrived(seq, f"<{seq}>") for seq in range(1, 21)))
    rooms.open(BOB)
    rooms.move(5)
    text = shown(talk(rooms))
    assert "<15>" in text
    assert "<16>" not in text
    assert text.endswith("5 newer below")
    rooms.arrived(arrived(21, "<21>"))
    assert shown(talk(rooms)).endswith("6 newer below")
    rooms.move(-100)
    assert "<21>" in shown(talk(rooms))
    assert last_row(rooms) == 21  # and the line that says the day


def test_rooms_are_stepped_through_round_the_end() -> None:
    rooms = rooms_of(arrived(1), arrived(1, channel=TEAM))
    assert rooms.step(1) is rooms.get(BOB)
    assert rooms.step(1) is rooms.get(TEAM)
    assert rooms.step(1) is rooms.get(BOB)
    assert rooms.step(-1) is rooms.get(TEAM)
    assert Rooms("ann").step(1) is None


def test_what_others_write_cannot_control_the_terminal() -> None:
    assert printable("\x1b[2Jx\ny\u202ez\x00") == "\ufffd[2Jx\ny\ufffdz\ufffd"
    rooms = rooms_of(arrived(1, '{"type":1,"content":"\\u001b[31mred\\nsecond"}', sender="b\x07b"))
    rooms.open(BOB)
    text = shown(talk(rooms))
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "\n        second" in text


def test_long_names_are_cut_in_the_list() -> None:
    rooms = rooms_of(arrived(1, channel=Channel.person("a" * 40)))
    assert all(len(row) <= 22 for row in shown(sidebar(rooms, 22)).split("\n"))


@pytest.mark.parametrize(("name", "channel"), [("bob", BOB), ("#team", TEAM)])
def test_names_are_typed_as_they_are_shown(name: str, channel: Channel) -> None:
    assert channel_of(name) == channel
    assert Rooms("ann").get(channel).name == name


def test_an_empty_screen_says_what_to_do() -> None:
    rooms = Rooms("ann")
    assert "nobody yet" in shown(sidebar(rooms, 22))
    assert "/to NAME" in shown(talk(rooms))
    rooms.open(BOB)
    assert "Nothing here yet" in shown(talk(rooms))
