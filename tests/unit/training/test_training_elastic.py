"""Elastic training: whoever dies, no committed step is lost or applied twice; all stay equal."""

from __future__ import annotations

import pytest
from elastic_kit import Elastics, member

from ddp.membership import SERVER, Record
from ddp.training import elastic as e
from ddp.training.elastic import Compute, Drop, Elastic, Fence, Heal, Propose, Vote

W1, W2, W3 = (member(n) for n in ("w1", "w2", "w3"))
THREE = Record(1, 0, (W1, W2, W3))


def core(name="w1", record=THREE, **options):
    found = Elastic(
        member(name, name, healed=False), **({"steps": 9, "founders": 3, "now": 0.0} | options)
    )
    if record is not None:
        found.on_record(record)
    found.take_outputs()
    return found


def outputs(found, kind):
    return [out for out in found.take_outputs() if isinstance(out, kind)]


@pytest.mark.parametrize("names", [("w1", "w2", "w3"), ("w1", "w2", "ps")])
@pytest.mark.parametrize("seed", range(30))
def test_random_misfortunes(seed, names):
    world = Elastics(seed, names=names)
    for turn in range(1500):
        world.step()
        if turn % 25 == 0 and world.dice.random() < 0.5:
            world.befall()
        world.check()
    epochs = world.store.record.epoch
    world.settle()
    world.check()
    assert epochs > 1, "nothing befell them"


@pytest.mark.parametrize("seed", range(40))
def test_a_busy_machine_costs_no_committed_step(seed):
    """All live, and are silent at times: they are put out, heal, put out others while they do."""
    world = Elastics(seed, busy=True, steps=30)
    for _ in range(1500):
        world.step()
        world.check()
    world.busy = False
    world.settle()
    world.check()
    assert world.store.record.epoch > 3, "nobody was silent"


@pytest.mark.parametrize("seed", range(10))
def test_everybody_may_die_where_there_is_a_checkpoint(seed):
    """Steps since then are lost and done again: by all alike, in a later epoch."""
    world = Elastics(seed, steps=30)
    for turn in range(1500):
        world.step()
        if turn % 20 == 0:
            world.befall(lose_all=True)
        world.check(lost=True)
    world.settle()
    world.check()


def test_a_run_without_misfortune_stays_in_one_epoch():
    world = Elastics(1)
    world.settle()
    assert {r.epoch for r in world.store.history} == {1}
    assert [r.step for r in world.store.history] == list(range(13))


def test_founders_begin_together_or_after_a_while():
    found = core(record=None)
    found.on_alive([found.me, member("w2")])
    assert outputs(found, Propose) == []
    found.on_deadline(e.FOUNDING_S)
    (proposal,) = outputs(found, Propose)
    assert proposal.before is None
    assert [m.name for m in proposal.after.members] == ["w1", "w2"]
    assert all(m.healed for m in proposal.after.members)


def test_only_when_all_have_voted_the_first_commits():
    found = core()
    found.on_sum(1, 0)
    found.on_vote(1, 0, "w2.1")
    assert outputs(found, Propose) == []
    found.on_vote(1, 0, "w3.1")
    (proposal,) = outputs(found, Propose)
    assert proposal.before == THREE
    assert proposal.after == Record(1, 1, (W1, W2, W3), decided_in=1)


def test_a_sum_is_applied_only_when_it_was_this_one_that_was_committed():
    """w2 held the sum of epoch 1; the step was done again without w3 in epoch 2."""
    for committed_in, kind in ((1, e.Apply), (2, Drop)):
        found = core("w2")
        found.on_sum(1, 0)
        assert outputs(found, Vote) == [Vote(1, 0, W1)]
        found.on_record(Record(2, 1, (W1, W2), decided_in=committed_in))
        assert isinstance(found.take_outputs()[0], kind)


def test_the_first_dies_after_the_swap_and_all_apply():
    found = core("w2")
    found.on_sum(1, 0)
    found.on_lost(1, ["w1.1"])
    (proposal,) = outputs(found, Propose)
    assert [m.name for m in proposal.after.members] == ["w2", "w3"]
    # The swap lost against that of the first, which had committed before it died.
    found.on_record(Record(1, 1, (W1, W2, W3), decided_in=1))
    assert outputs(found, e.Apply) == [e.Apply(1, 0)]
    found.on_proposal_over()
    (proposal,) = outputs(found, Propose)
    assert proposal.after.step == 1


def test_who_was_put_out_is_fenced_and_asks_as_somebody_else():
    found = core("w3")
    found.on_sum(1, 0)
    found.take_outputs()
    found.on_record(Record(2, 0, (W1, W2)))
    drop, fence, ask = found.take_outputs()
    assert (drop, fence) == (Drop(1, 0), Fence(2))
    assert ask.member.life == "w3.2"
    # What arrives from its past changes nothing.
    found.on_sum(1, 0)
    found.on_record(THREE)
    found.on_healed(1, 0)
    assert found.phase == e.OUTSIDE


def test_votes_and_losses_of_another_epoch_count_for_nothing():
    found = core(record=Record(4, 0, (W1, W2), decided_in=3))
    found.on_sum(3, 0)
    assert found.phase == e.COMPUTING
    found.on_sum(4, 0)
    found.on_vote(3, 0, "w2.1")
    found.on_vote(5, 0, "w2.1")
    found.on_lost(3, ["w2.1"])
    assert outputs(found, Propose) == []
    found.on_vote(4, 0, "w2.1")
    assert len(outputs(found, Propose)) == 1


def test_a_newcomer_heals_from_a_member_and_then_computes():
    found = core("w4", record=None)
    record = Record(3, 7, (W1, W2, member("w4", "w4.1", healed=False)), decided_in=2)
    found.on_record(record)
    assert outputs(found, Heal) == [Heal(3, 7, W1)]
    found.on_healed(3, 7)
    assert outputs(found, Compute) == [Compute(record, 2)]
    found.check()


def test_if_its_source_dies_it_heals_from_the_next():
    found = core("w4", record=Record(3, 7, (W1, W2, member("w4", "w4.1", healed=False))))
    found.on_lost(3, ["w1.1"])
    (proposal,) = outputs(found, Propose)
    found.on_record(proposal.after)
    assert outputs(found, Heal) == [Heal(4, 7, W2)]


def test_newcomers_come_in_with_a_commit_and_cost_no_work():
    found = core(record=Record(1, 0, (W1,)), founders=1)
    found.on_alive([member("w9", "w9.1", healed=False)])
    assert outputs(found, Propose) == []
    found.on_sum(1, 0)
    (proposal,) = outputs(found, Propose)
    assert proposal.after.step == 1
    assert proposal.after.epoch == 2
    assert proposal.after.members == (W1, member("w9", "w9.1", healed=False))


def test_who_asks_under_the_name_of_a_member_is_its_next_life():
    found = core()
    found.on_alive([member("w2", "w2.7", healed=False)])
    (proposal,) = outputs(found, Propose)
    assert [(m.life, m.healed) for m in proposal.after.members] == [
        ("w1.1", True),
        ("w3.1", True),
        ("w2.7", False),
    ]


def test_outsiders_begin_anew_only_where_nobody_is_left():
    found = core("w9", record=None)
    found.on_alive([found.me])
    found.on_record(THREE)
    found.take_outputs()
    found.on_lost(1, ["w1.1", "w2.1"])
    assert outputs(found, Propose) == []
    found.on_lost(1, ["w3.1"])
    (proposal,) = outputs(found, Propose)
    found.on_record(proposal.after)
    assert outputs(found, Heal) == [Heal(2, 0, None)]


def test_silence_alone_does_not_take_the_last_parameters_away():
    """A machine that slept wakes up, and everybody has been silent for long. Who is healing puts
    nobody out that has what it needs, until his lease has ended: committed steps would be lost."""
    newcomer = member("w9", "w9.1", healed=False)
    found = core("w9", record=Record(2, 7, (W1, newcomer)))
    found.on_alive([W1, newcomer])
    found.on_lost(2, ["w1.1"])
    assert outputs(found, Propose) == []
    found.on_alive([newcomer])
    (proposal,) = outputs(found, Propose)
    assert proposal.after == Record(3, 7, (newcomer,))


def test_who_answers_again_is_suspected_no_more():
    newcomer = member("w9", "w9.1", healed=False)
    found = core("w9", record=Record(2, 7, (W1, newcomer)))
    found.on_alive([W1, newcomer])
    found.on_lost(2, ["w1.1"])
    found.on_answer("w1.1")
    found.on_alive([newcomer])  # its lease ended while it slept, and it has not asked again yet
    assert outputs(found, Propose) == []


def test_whose_entry_ended_while_it_slept_is_among_the_living_again():
    found = core("w1", record=THREE)
    found.on_given_up()
    assert [ask.member.life for ask in outputs(found, e.Ask)] == ["w1.1"]


def test_where_all_parameters_are_lost_the_first_says_from_where():
    """Its proposal may have to wait for another of its own that is still under way."""
    found = core("w9", record=None, steps=99)
    found.on_alive([found.me])
    found.on_record(THREE)
    found.on_lost(1, ["w1.1", "w2.1", "w3.1"])
    (proposal,) = outputs(found, Propose)
    found.on_record(Record(2, 25, proposal.after.members))
    assert outputs(found, Heal) == [Heal(2, 25, None)]
    found.on_healed(2, 20)
    assert outputs(found, Propose) == []
    found.on_proposal_over()
    (proposal,) = outputs(found, Propose)
    assert (proposal.after.epoch, proposal.after.step) == (3, 20)
    found.on_record(proposal.after)
    assert [type(out) for out in found.take_outputs()] == [Compute]


def test_a_server_has_the_last_rank_however_it_came():
    """Ranks of those that compute are those by which the batch is divided."""
    server = member("ps", role=SERVER)
    found = core("w1", record=None, founders=3)
    found.on_alive([server, member("w2"), found.me])
    (proposal,) = outputs(found, Propose)
    assert [m.name for m in proposal.after.members] == ["w1", "w2", "ps"]
    later = Record(1, 0, (W1, server)).changed((), [member("w2", "w2.1", healed=False)])
    assert [m.name for m in later.members] == ["w1", "w2", "ps"]
    assert [m.name for m in later.workers] == ["w1", "w2"]


def test_a_server_alone_lets_in_who_comes():
    """There is no commit with which they could come: nobody computes."""
    server = member("ps", role=SERVER)
    found = core("ps", record=Record(2, 5, (server,)), founders=1)
    found.on_healed(2, 5)
    assert outputs(found, Propose) == []
    newcomer = member("w1", "w1.7", healed=False)
    found.on_alive([server, newcomer])
    (proposal,) = outputs(found, Propose)
    assert proposal.after == Record(3, 5, (newcomer, server))


def test_a_group_that_is_over_though_all_live_begins_another_epoch():
    for epoch, proposals in ((1, 1), (2, 0)):
        found = core("w2")
        found.on_over(epoch)
        assert [p.after for p in outputs(found, Propose)] == [
            Record(2, 0, (W1, W2, W3))
        ] * proposals


def test_who_was_put_out_is_not_let_in_by_late_news_of_the_living():
    """The record is read at once; the list of the living comes by the watch, a moment later."""
    found = core(record=Record(1, 0, (W1, W2, W3)))
    found.on_record(Record(2, 0, (W1, W2)))
    found.on_alive([W1, W2, W3])
    found.on_sum(2, 0)
    found.on_vote(2, 0, "w2.1")
    (proposal,) = outputs(found, Propose)
    assert proposal.after == Record(2, 1, (W1, W2), decided_in=2)


def test_who_was_in_and_out_unawares_asks_as_somebody_else():
    found = core("w4", record=THREE)
    assert found.me.life == "w4.1"
    found.on_given_up()
    assert [ask.member.life for ask in outputs(found, e.Ask)] == ["w4.2"]


def test_designed_reprs():
    assert repr(core("w2")) == "<Elastic w2 computing epoch=1 applied=0>"
    record = Record(4, 17, (W1, member("w3", "w3.2", healed=False)))
    assert repr(record) == "<Record epoch=4 step=17 [w1 (w3)]>"
