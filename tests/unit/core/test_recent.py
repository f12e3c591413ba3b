"""The cache of what was used last."""

from triolet_core._recent import Recent


def test_what_was_not_used_for_the_longest_time_goes_first() -> None:
    cache: Recent[str, int] = Recent(2)
    cache.keep("a", 1)
    cache.keep("b", 2)
    assert cache.find("a") == 1
    cache.keep("c", 3)
    assert cache.find("b") is None
    assert dict(cache) == {"a": 1, "c": 3}


def test_keeping_again_is_a_use() -> None:
    cache: Recent[str, int] = Recent(2)
    cache.keep("a", 1)
    cache.keep("b", 2)
    cache.keep("a", 3)
    cache.keep("c", 4)
    assert dict(cache) == {"a": 3, "c": 4}
