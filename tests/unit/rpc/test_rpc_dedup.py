"""At-most-once by a nonce table: each verdict, and the bounds of the memory."""

from __future__ import annotations

from netstack.rpc.dedup import FORGOTTEN, FULL, NEW, RUNNING, OnceTable, Outcome

A, B = b"client-a", b"client-b"
OK = Outcome(1, "done")


def test_the_first_copy_runs_and_a_copy_of_a_finished_call_gets_its_answer():
    table = OnceTable()
    assert table.begin(A, 1, 1, retry=False) is NEW
    assert table.begin(A, 1, 1, retry=True) is RUNNING
    table.finish(A, 1, OK)
    assert table.begin(A, 1, 1, retry=True) == OK


def test_a_waiter_on_a_running_call_is_handed_its_outcome():
    table = OnceTable()
    table.begin(A, 1, 1, retry=False)
    table.wait(A, 1, "second copy")
    assert table.finish(A, 1, OK) == ["second copy"]


def test_callers_do_not_share_numbers():
    table = OnceTable()
    assert table.begin(A, 1, 1, retry=False) is NEW
    assert table.begin(B, 1, 1, retry=False) is NEW


def test_what_the_caller_has_is_forgotten():
    table = OnceTable()
    for sequence in range(1, 100):
        assert table.begin(A, sequence, sequence, retry=False) is NEW
        table.finish(A, sequence, OK)
    assert repr(table) == "<OnceTable clients=1 outcomes=1>"
    assert table.begin(A, 5, 5, retry=True) is FORGOTTEN


def test_too_many_open_calls_of_one_caller_are_refused_and_not_run():
    table = OnceTable(outcomes_per_client_max=2)
    assert table.begin(A, 1, 1, retry=False) is NEW
    assert table.begin(A, 2, 1, retry=False) is NEW
    assert table.begin(A, 3, 1, retry=False) is FULL
    table.finish(A, 1, OK)
    table.finish(A, 2, OK)
    assert table.begin(A, 3, 3, retry=False) is NEW


def test_a_retry_of_an_evicted_caller_is_not_run_again():
    table = OnceTable(clients_max=1)
    table.begin(A, 1, 1, retry=False)
    table.finish(A, 1, OK)
    table.begin(B, 1, 1, retry=False)
    assert table.begin(A, 1, 1, retry=True) is FORGOTTEN


def test_nor_is_one_whose_caller_was_evicted_and_has_called_again_since():
    table = OnceTable(clients_max=1)
    table.begin(A, 1, 1, retry=False)
    table.finish(A, 1, OK)
    table.begin(B, 1, 1, retry=False)
    table.finish(B, 1, OK)
    assert table.begin(A, 3, 1, retry=False) is NEW
    assert table.begin(A, 1, 1, retry=True) is FORGOTTEN
    assert table.begin(A, 2, 1, retry=False) is NEW  # overtaken on its way
    assert table.begin(A, 4, 1, retry=True) is NEW  # the first copy never arrived


def test_a_caller_with_a_running_call_is_not_evicted():
    table = OnceTable(clients_max=1)
    table.begin(A, 1, 1, retry=False)
    table.begin(B, 1, 1, retry=False)
    table.finish(A, 1, OK)
    assert table.begin(A, 1, 1, retry=True) == OK
