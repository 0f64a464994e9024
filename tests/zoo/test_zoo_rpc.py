"""Planted bugs of calls and links, and the test that catches each.

A judge is a test of tests/unit/rpc, where it passes; here it must fail.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest
import rpc_bugs as bugs
from evidence import caught

from netstack.rpc import frames
from netstack.rpc.errors import Forbidden, Interrupted

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit" / "rpc"))
broken = importlib.import_module("test_rpc_bugs")
calls = importlib.import_module("test_rpc_calls")
hostile = importlib.import_module("test_rpc_hostile")
links = importlib.import_module("test_rpc_links")
nonces = importlib.import_module("test_rpc_dedup")


TABLE, CALL = "netstack.rpc.dedup.OnceTable", "netstack.rpc.service.Call"
SERVICE, CLIENT = "netstack.rpc.node.RpcService", "netstack.rpc.node.RpcClient"
CONVERSATION, LINK = "netstack.rpc.node.RpcConnection", "netstack.rpc.node.Link"
INCOMING, FROM_WIRE = "netstack.rpc.connection.Incoming", "netstack.rpc.connection.from_wire"
PEER = "netstack.transport.host.Peer"

retries, server_streams = calls.TestRetries(), calls.TestStreams()
lanes, nonsense = hostile.TestFullLanes(), hostile.TestNonsense()
handlers, siblings = broken.TestHandlersWithBugs(), links.TestLinks()
clients = links.TestClients()

ZOO = [
    (
        bugs.RunsCopies,
        TABLE,
        retries.test_a_copy_of_a_running_call_waits_for_it_and_gets_the_same_answer,
        "assert stranger.answers(4) == [[frames.REPLY, 4, 1.0]]",
    ),
    (
        bugs.RunsCopies,
        TABLE,
        retries.test_once_runs_once_however_often_the_connection_is_lost,
        'assert town.server.service.seen == {"ran": 10}',
    ),
    (
        bugs.ForgetsWhoWaits,
        TABLE,
        retries.test_a_copy_of_a_running_call_waits_for_it_and_gets_the_same_answer,
        "assert [stranger.answers(i) for i in (1, 2, 3)] == [ [[frames.REPLY, i,",
    ),
    (
        bugs.RemembersEverything,
        TABLE,
        retries.test_what_is_remembered_of_a_caller_does_not_grow,
        'Overloaded: assert await client.call("slow", 0.0, once=True) == 0.0, i',
    ),
    (
        bugs.ForgetsThatItForgot,
        "test_rpc_dedup.OnceTable",
        nonces.test_nor_is_one_whose_caller_was_evicted_and_has_called_again_since,
        "assert table.begin(A, 1, 1, retry=True) is FORGOTTEN",
    ),
    (
        bugs.TakesAnyLifeForItsOwn,
        SERVICE,
        retries.test_once_is_refused_by_another_life_of_the_service,
        'with pytest.raises(Interrupted, match="restarted"):',
    ),
    (
        bugs.RepeatsPlainCalls,
        CLIENT,
        retries.test_a_plain_call_is_not_repeated,
        "with pytest.raises(ConnectionLost) as caught:",
    ),
    (
        bugs.BelievesTheLastTry,
        CLIENT,
        lambda: retries.test_a_retry_that_did_not_happen_says_nothing_about_the_first_try(
            "once", "refused"
        ),
        "Unavailable: await task",
    ),
    (
        bugs.NeverRepeats,
        CLIENT,
        retries.test_an_idempotent_one_is,
        "ConnectionLost: assert await self._killed_in_the_middle(town, idempotent=True)",
    ),
    (
        bugs.NeverRepeats,
        CLIENT,
        retries.test_once_runs_once_when_only_the_connection_is_lost,
        "ConnectionLost: assert await task == 1.0",
    ),
    (
        bugs.DiesWithItsConnection,
        CALL,
        retries.test_once_runs_once_when_only_the_connection_is_lost,
        "Interrupted: assert await task == 1.0",
    ),
    (
        bugs.WorksForNobody,
        CALL,
        retries.test_a_lost_connection_stops_the_work_of_a_plain_call_and_not_of_a_keyed_one,
        'assert town.server.service.seen == {"ran": 2, "cancelled": 1}',
    ),
    (
        bugs.IgnoresWhoMayCall,
        SERVICE,
        lambda: calls.test_an_error_arrives_as_what_it_is("secret", None, Forbidden, True),
        "with pytest.raises(RpcError) as caught:",
    ),
    (
        bugs.HasNoLimit,
        SERVICE,
        calls.test_too_many_open_calls_are_refused_and_did_not_happen,
        "with pytest.raises(Overloaded) as caught:",
    ),
    (
        bugs.TakesCallsWhileItDrains,
        SERVICE,
        calls.test_a_service_that_drains_finishes_what_it_has_and_takes_nothing_new,
        "with pytest.raises(Unavailable) as caught:",
    ),
    (
        bugs.IgnoresDeadlines,
        SERVICE,
        calls.test_both_sides_keep_the_deadline_though_they_hear_no_more_of_each_other,
        'assert town.server.service.seen == {"ran": 1, "cancelled": 1}',
    ),
    (
        bugs.WorksOnWhenCancelled,
        CALL,
        calls.test_a_caller_that_gives_up_stops_the_work,
        'assert town.server.service.seen["cancelled"] == 1',
    ),
    (
        bugs.KeepsCountingTheCancelled,
        CALL,
        calls.test_a_caller_that_gives_up_stops_the_work,
        "assert town.server.service.open_calls == 0",
    ),
    (
        bugs.WaitsForever,
        CONVERSATION,
        calls.test_both_sides_keep_the_deadline_though_they_hear_no_more_of_each_other,
        "ConnectionLost: await task",
    ),
    (
        bugs.DialsForEachCall,
        CLIENT,
        calls.test_callers_that_begin_together_share_one_dial,
        "assert len(town.server.connections) == 1",
    ),
    (
        bugs.SpendsAPacketOnEachMessage,
        CONVERSATION,
        calls.test_a_hundred_calls_at_once_share_their_packets,
        "assert max(town.packets().values()) < 15 # the handshake's and the",
    ),
    (
        bugs.is_always_sure,
        FROM_WIRE,
        lambda: calls.test_an_error_arrives_as_what_it_is("break", None, Interrupted, False),
        "assert caught.value.definite is definite",
    ),
    (
        bugs.SendsWithoutCredit,
        CALL,
        server_streams.test_a_slow_consumer_holds_the_producer_up,
        "assert ahead <= STREAM_WINDOW_ITEMS + 1",
    ),
    (
        bugs.GivesNoCredit,
        INCOMING,
        server_streams.test_items_in_order_to_the_end,
        'DeadlineExceeded: return [item async for item in client.stream("count", 1_000)]',
    ),
    (
        bugs.TakesALossForTheEnd,
        INCOMING,
        server_streams.test_a_lost_connection_ends_a_stream_with_an_error_not_an_end,
        "with pytest.raises(ConnectionLost):",
    ),
    (
        bugs.LetsTheProducerRunOn,
        CONVERSATION,
        server_streams.test_a_consumer_that_leaves_ends_the_producer,
        'assert town.server.service.seen["cancelled"] == 1',
    ),
    (
        bugs.ReportsNothing,
        CONVERSATION,
        lambda: handlers.test_the_caller_learns_that_it_does_not_know_and_the_service_goes_on(
            "raises_at_once"
        ),
        'assert theirs.counters["handler_errors"] == 2',
    ),
    (
        bugs.TellsNobodyWhatWasDropped,
        CONVERSATION,
        lanes.test_one_way_messages_are_dropped_and_the_sender_is_told,
        'assert connection.counters["notify_dropped"] == 100 - kept',
    ),
    (
        bugs.NeverHoldsBack,
        CONVERSATION,
        lanes.test_callers_wait,
        "assert connection._lane.buffered < CONGESTED_BYTES + 600_000 # 15 MB",
    ),
    (
        bugs.NeverHoldsBack,
        CONVERSATION,
        lanes.test_a_producer_of_large_items_waits_for_the_lane_too,
        "ConnectionLost: await anext(stream)",
    ),
    (
        bugs.WaitsForRoomWithoutEnd,
        CONVERSATION,
        lanes.test_the_time_limit_of_a_call_holds_while_it_waits,
        'with pytest.raises(Unavailable, match="no room"):',
    ),
    (
        bugs.WakesNoWriter,
        PEER,
        lanes.test_callers_wait,
        "Unavailable: assert len(await asyncio.gather(*calls)) == 30",
    ),
    (
        bugs.HoardsWhatIsNotRead,
        CONVERSATION,
        lanes.test_a_peer_that_asks_and_does_not_read_is_cut_off,
        'assert "its answers were not read" in str(theirs.closed)',
    ),
    (
        bugs.ReadsOnAfterNonsense,
        CONVERSATION,
        lambda: nonsense.test_ends_that_connection_and_no_other_and_is_counted(
            hostile.NONSENSE["no such kind"]
        ),
        "assert stranger.peer.closed",
    ),
    (
        bugs.ReadsOnWhenItIsOver,
        CONVERSATION,
        nonsense.test_nothing_is_run_for_a_connection_that_was_ended,
        "assert town.server.service.open_calls == 0",
    ),
    (
        bugs.StaysWithHalfALane,
        CONVERSATION,
        nonsense.test_a_lane_that_is_given_up_is_the_end_of_the_connection,
        "assert stranger.peer.closed",
    ),
    (
        bugs.TakesAnyNumberOfItems,
        CONVERSATION,
        lambda: nonsense.test_a_stream_brings_no_more_than_there_was_room_for(frames.ITEM),
        'assert theirs.counters["protocol_errors"] == 1',
    ),
    (
        bugs.HasOneLane,
        CONVERSATION,
        siblings.test_a_heartbeat_does_not_wait_behind_a_snapshot,
        "assert small == [0, 1, 2, 3]",
    ),
    (
        bugs.AlwaysDials,
        LINK,
        siblings.test_a_pair_shares_one_connection_and_both_speak_on_it,
        "assert len(siblings.up) == 6",
    ),
    (
        bugs.KeepsTheOlder,
        LINK,
        siblings.test_the_newest_connection_is_the_one_in_use_and_the_older_is_closed,
        "assert older.closed",
    ),
    (
        bugs.DialsOnce,
        LINK,
        lambda: siblings.test_a_sibling_that_comes_back_is_linked_again_whoever_dials("gamma"),
        "assert len(siblings.up) == 6",
    ),
    (
        bugs.IgnoresWhoCameBefore,
        CONVERSATION,
        siblings.test_a_link_made_after_the_sibling_dialled_uses_its_connection,
        'assert siblings.link("beta", "alpha").up',
    ),
    (
        bugs.DialsInHaste,
        "netstack.rpc.node.Dialler",
        siblings.test_a_sibling_that_hangs_up_at_once_is_not_dialled_without_a_pause,
        "assert 0 < siblings.dials < 100",
    ),
    (
        bugs.DialsInHaste,
        "netstack.rpc.client.Dialler",
        clients.test_a_service_that_hangs_up_at_once_is_not_dialled_without_a_pause,
        "assert 10 < len(dials) < 100",
    ),
    (
        bugs.RevivesWhenItIsCalled,
        CLIENT,
        clients.test_a_client_that_was_closed_does_not_dial_again,
        "with pytest.raises(ConnectionLost):",
    ),
    (
        bugs.LingersWhenUnlinked,
        LINK,
        siblings.test_an_unlinked_sibling_is_not_dialled_any_more,
        'assert not siblings.link("beta", "alpha").up',
    ),
]


def _id(value: object) -> str:
    return "" if isinstance(value, str) else getattr(value, "__name__", "").strip("<>")


@pytest.mark.parametrize(("bug", "where", "judge", "by"), ZOO, ids=_id)
def test_the_bug_is_caught(bug, where, judge, by, monkeypatch):
    with monkeypatch.context() as planted:
        planted.setattr(where, bug)
        with caught(by):
            judge()
