import math

from triolet_core import UserInfo
from triolet_datasource._cache import Answers, Kept, Timetable
from triolet_datasource._questions import Kind, Question


def members(group: str) -> Question:
    return Question(Kind.SUBSCRIBERS, group, 2)


def uids(count: int) -> Kept:
    return Kept(tuple(f"u{n}" for n in range(count)), 60.0)


def test_the_least_recently_used_answers_make_room() -> None:
    evicted: list[Question] = []
    answers = Answers(most=10, on_evicted=evicted.append)
    for group in "abc":
        answers.put(members(group), uids(2))
    answers.get(members("a"))
    answers.put(members("d"), uids(3))
    assert evicted == [members("b")]
    assert [question.id for question in answers] == ["c", "a", "d"]
    assert answers.weight == 10


def test_an_answer_that_is_larger_than_the_bound_is_not_kept() -> None:
    evicted: list[Question] = []
    answers = Answers(most=10, on_evicted=evicted.append)
    answers.put(members("small"), uids(1))
    answers.put(members("large"), uids(10))
    assert (len(answers), answers.weight) == (0, 0)
    assert evicted == [members("small"), members("large")]


def test_an_answer_takes_the_place_of_an_older_one() -> None:
    answers = Answers(most=10, on_evicted=lambda question: None)
    answers.put(members("a"), uids(5))
    answers.put(members("a"), uids(1))
    answers.put(Question(Kind.USER_INFO, "ann"), Kept(UserInfo(uid="ann"), 60.0))
    assert (len(answers), answers.weight) == (2, 3)
    answers.drop(members("a"))
    answers.drop(members("never kept"))
    assert answers.weight == 1
    answers.clear()
    assert (len(answers), answers.weight) == (0, 0)


def test_things_come_due_in_order_and_a_new_note_puts_one_off() -> None:
    table: Timetable[str] = Timetable(10)
    assert table.first == math.inf
    table.note("a", 0)
    table.note("b", 1)
    table.note("a", 2)
    assert table.first == 11
    assert table.take(10.9, 9) == []
    assert table.take(12, 1) == ["b"]
    assert table.take(12, 9) == ["a"]
    assert table.first == math.inf
