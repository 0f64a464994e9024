"""Reads that wait for a quorum, then for the store: each is served once, and none too early."""

from __future__ import annotations

from raftd.reads import WaitingReads


def reads(*names):
    waiting = WaitingReads(100)
    for name in names:
        waiting.add(name)
    return waiting


def test_all_that_have_come_wait_under_one_token():
    waiting = reads("a", "b")
    assert waiting.ask() == 101
    assert waiting.ask() is None
    waiting.add("c")
    assert waiting.ask() == 102
    waiting.confirmed(101, 5)
    assert waiting.take_ready(5) == ["a", "b"]
    waiting.confirmed(102, 5)
    assert waiting.take_ready(5) == ["c"]


def test_nothing_is_served_before_the_store_is_there():
    waiting = reads("a")
    waiting.confirmed(waiting.ask(), 7)
    assert waiting.take_ready(6) == []
    assert waiting.take_ready(7) == ["a"]
    assert waiting.take_ready(7) == []


def test_what_is_behind_waits_on():
    waiting = reads("early")
    waiting.confirmed(waiting.ask(), 9)
    waiting.add("late")
    waiting.confirmed(waiting.ask(), 4)
    assert waiting.take_ready(4) == ["late"]
    assert waiting.take_ready(9) == ["early"]


def test_an_answer_to_nobody_and_a_second_answer_serve_nobody():
    waiting = reads("a")
    token = waiting.ask()
    waiting.confirmed(token - 1, 1)
    assert waiting.take_ready(99) == []
    waiting.confirmed(token, 1)
    waiting.confirmed(token, 1)
    assert waiting.take_ready(99) == ["a"]


def test_who_has_failed_is_told_once():
    waiting = reads("a")
    token = waiting.ask()
    assert waiting.take_failed(token) == ["a"]
    assert waiting.take_failed(token) == []
    waiting.confirmed(token, 1)
    assert waiting.take_ready(99) == []


def test_a_leader_that_is_none_any_more_lets_go_of_what_was_asked_and_keeps_what_was_confirmed():
    waiting = reads("confirmed")
    waiting.confirmed(waiting.ask(), 3)
    waiting.add("asked")
    waiting.ask()
    waiting.add("new")
    assert waiting.take_asked() == ["asked"]
    assert waiting.take_ready(3) == ["confirmed"]
    assert waiting.ask() == 103
