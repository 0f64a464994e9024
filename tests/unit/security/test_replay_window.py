"""The replay window against a plain set."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from security.replay import WINDOW, ReplayWindow


class RememberEverything:
    """The model: a set of all numbers, and the rule about what is too old."""

    def __init__(self) -> None:
        self.seen: set[int] = set()

    def is_new(self, number: int) -> bool:
        top = max(self.seen, default=-1)
        return number not in self.seen and number > top - WINDOW

    def accept(self, number: int) -> None:
        self.seen.add(number)


steps = st.lists(
    st.one_of(st.integers(0, 100), st.integers(0, 4 * WINDOW), st.integers(0, 2**62)), max_size=60
)


@settings(deadline=None)
@given(numbers=steps)
def test_agrees_with_a_set(numbers):
    window, model = ReplayWindow(), RememberEverything()
    for number in numbers:
        assert window.is_new(number) == model.is_new(number)
        if model.is_new(number):
            window.accept(number)
            model.accept(number)


def test_both_edges_of_the_window():
    window = ReplayWindow()
    window.accept(WINDOW)
    assert window.is_new(1)
    assert not window.is_new(0)
    assert not window.is_new(WINDOW)
    window.accept(1)
    assert not window.is_new(1)
    assert repr(window) == f"<ReplayWindow highest={WINDOW} held=2/{WINDOW}>"
