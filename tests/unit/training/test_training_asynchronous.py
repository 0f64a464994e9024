"""Asynchronous elastic runs: whoever dies, what is committed is on the server's disk."""

from __future__ import annotations

from dataclasses import replace

import pytest
from asynchronous_kit import Pushers
from elastic_kit import member

from ddp.membership import SERVER, Record
from ddp.training import elastic as e
from ddp.training.asynchronous import Asynchronous
from ddp.training.elastic import Drop, Finish, Heal, Propose, Push, Serve

W1, W2 = (member(n, healed=False) for n in ("w1", "w2"))
PS = member("ps", role=SERVER)
ALL = Record(1, 0, (W1, W2, PS))


def core(name="w1", record=ALL, **options):
    role = SERVER if name == "ps" else "worker"
    me = member(name, name, healed=False, role=role)
    found = Asynchronous(me, **({"steps": 40, "founders": 3, "now": 0.0} | options))
    if record is not None:
        found.on_record(record)
    return found


def outputs(found, kind):
    return [out for out in found.take_outputs() if isinstance(out, kind)]


def after(found, epoch=1, step=20, members=(W1, W2, PS)):
    found.take_outputs()
    found.on_record(Record(epoch, step, members, decided_in=1))
    return found.take_outputs()


@pytest.mark.parametrize("bound", [0, 1, None])
@pytest.mark.parametrize("seed", range(20))
def test_random_misfortunes(seed, bound):
    world = Pushers(seed, bound=bound, steps=40)
    for turn in range(2500):
        world.step()
        if turn % 25 == 0 and world.dice.random() < 0.4:
            world.befall(lose_all=True)
        world.check(lost=True)
    epochs = world.store.record.epoch
    world.settle()
    world.check(lost=True)
    assert epochs > 3, "nothing befell them"


def test_without_misfortune_the_server_commits_what_it_keeps():
    world = Pushers(1, steps=12)
    world.settle()
    assert {r.epoch for r in world.store.history} == {1}
    assert [r.step for r in world.store.history] == [0, 5, 10, 12]
    assert world.pushes == 2 * 12


def test_of_the_founders_only_the_server_has_the_parameters():
    found = core(record=None)
    found.take_outputs()
    found.on_alive([replace(PS, healed=False), W2, found.me])
    (proposal,) = outputs(found, Propose)
    assert [(m.name, m.healed) for m in proposal.after.members] == [
        ("w1", False),
        ("w2", False),
        ("ps", True),
    ]


def test_workers_push_and_the_server_serves():
    assert outputs(core("w1"), Push) == [Push(PS)]
    assert outputs(core("ps"), Serve) == [Serve(ALL)]


def test_who_comes_is_let_in_at_once_and_disturbs_nobody():
    found, newcomer = core("w1"), member("w9", "w9.1", healed=False)
    found.on_alive([W1, W2, PS, newcomer])
    (proposal,) = outputs(found, Propose)
    assert proposal.after.members == (W1, W2, newcomer, PS)
    assert after(found, 2, 0, proposal.after.members) == []
    server = core("ps")
    server.take_outputs()
    server.on_record(proposal.after)
    assert outputs(server, Serve) == [Serve(proposal.after)]


def test_the_server_commits_what_is_on_its_disk_and_nothing_before():
    found = core("ps")
    found.take_outputs()
    found.on_record(ALL)
    assert outputs(found, Propose) == []
    found.on_kept(20)
    (proposal,) = outputs(found, Propose)
    assert proposal.after == Record(1, 20, (W1, W2, PS), decided_in=1)


def test_a_dead_server_is_waited_for_and_its_next_life_begins_with_what_it_kept():
    found = core("w1")
    found.on_alive([W1, W2])  # its lease has ended
    found.take_outputs()
    found.on_lost(1, ["ps.1"])
    (proposal,) = outputs(found, Propose)
    assert after(found, 2, 20, proposal.after.members) == [Drop(2, 20)]
    assert found.phase == e.HEALING
    newcomer = member("ps", "ps.1", healed=False, role=SERVER)
    record = Record(3, 20, (W1, W2, newcomer), decided_in=1)
    assert after(found, 3, 20, record.members) == []

    server = core("ps", record)
    assert outputs(server, Heal) == [Heal(3, 20, None)]
    server.on_healed(3, 20)
    (proposal,) = outputs(server, Propose)
    assert proposal.after == Record(4, 20, (W1, W2, replace(newcomer, healed=True)), decided_in=1)
    server.on_record(proposal.after)
    assert outputs(server, Serve) == [Serve(proposal.after)]
    found.on_proposal_over()
    assert after(found, 4, 20, proposal.after.members) == [Push(replace(newcomer, healed=True))]


def test_a_silent_server_is_not_put_out_while_its_lease_lasts():
    """Nobody else has the parameters."""
    found = core("w1")
    found.on_alive([W1, W2, PS])
    found.take_outputs()
    found.on_lost(1, ["ps.1"])
    assert outputs(found, Propose) == []
    found.on_alive([W1, W2])
    assert len(outputs(found, Propose)) == 1


def test_at_the_end_each_fetches_what_the_server_has():
    found = core("w1")
    assert after(found, step=40) == [Drop(1, 40), Heal(1, 40, PS)]
    found.on_healed(1, 40)
    assert found.take_outputs() == [Finish(40)]
    server = core("ps")
    server.on_kept(40)
    assert after(server, step=40) == [Finish(40)]


def test_who_was_put_out_drops_what_it_computes():
    found = core("w2")
    drop, ask = after(found, 2, 20, (W1, PS))
    assert drop == e.Fence(2)
    assert ask.member.life == "w2.2"
