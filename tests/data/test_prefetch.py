import itertools
import threading
import time

import pytest

from minidl.data import prefetch


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "minidl prefetch"]


def test_the_items_come_in_order():
    assert list(prefetch(range(100), depth=3)) == list(range(100))
    assert list(prefetch([])) == []
    assert not threads()


def test_the_next_items_are_made_while_the_present_one_is_used():
    made = []

    def items():
        for i in range(10):
            made.append(i)
            yield i

    ahead = prefetch(items(), depth=2)
    assert next(ahead) == 0
    deadline = time.monotonic() + 60
    while len(made) < 4 and time.monotonic() < deadline:
        time.sleep(0.001)
    assert made == [0, 1, 2, 3]  # one given, two waiting, one in hand
    assert list(ahead) == list(range(1, 10))


def test_errors_come_when_their_turn_does():
    def items():
        yield 1
        raise OSError("unplugged")

    ahead = prefetch(items())
    assert next(ahead) == 1
    with pytest.raises(OSError, match="unplugged"):
        next(ahead)
    assert not threads()


def test_where_no_thread_can_be_started_nothing_is_read_ahead(monkeypatch):
    def refuse(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    made = []

    def items():
        for i in range(3):
            made.append(i)
            yield i
        raise OSError("unplugged")

    ahead = prefetch(items())
    assert next(ahead) == 0
    assert made == [0]
    with pytest.raises(OSError, match="unplugged") as raised:
        list(ahead)
    assert raised.value.__context__ is None


def test_closing_ends_the_thread():
    ahead = prefetch(itertools.count())
    assert next(ahead) == 0
    assert len(threads()) == 1
    ahead.close()
    assert not threads()


def test_a_depth_of_nothing_is_refused():
    with pytest.raises(ValueError, match="depth must be at least 1, got 0"):
        next(prefetch([1], depth=0))
