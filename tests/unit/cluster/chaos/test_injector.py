"""The injector on a system that only remembers: what is done and undone, and what counts."""

from __future__ import annotations

import asyncio
import random

import pytest
from chaos_kit import FakeSystem, in_virtual_time, later

from cluster.chaos.injector import Injector
from cluster.chaos.plan import Episode
from cluster.chaos.system import NoEffect, Refused
from cluster.errors import NotInTime


def inject(system, *plan, seed=1, heal=True, meanwhile=(), patience_s=0.0):
    """Carry a plan out and heal; the injector afterwards. `meanwhile`: what goes on beside it."""

    async def scenario():
        loop = asyncio.get_running_loop()
        injector = Injector(system, random.Random(seed), loop.time, patience_s=patience_s)
        await asyncio.gather(injector.run(list(plan)), *meanwhile)
        if heal:
            await injector.heal()
        return injector

    return in_virtual_time(scenario())


def episode(fault, target="one", at=1.0, until=2.0, **values):
    return Episode(fault, target, values, at, until)


def test_who_is_killed_is_started_again_and_what_showed_it_is_told():
    system = FakeSystem()
    (record,) = inject(system, episode("kill", "leader")).records
    assert system.deeds[:2] == [("kill", "n1"), ("revive", "n1")]
    assert (record.nodes, record.took_effect, record.evidence) == (["n1"], True, "n1 is gone")
    assert (record.begin, record.end) == (1.0, 2.0)


def test_two_faults_never_have_one_process_in_hand():
    system = FakeSystem(3)
    records = inject(
        system,
        episode("kill", "n1", 1.0, 5.0),
        episode("pause", "n1", 2.0, 3.0),
        episode("wipe", "n1", 2.5, 3.5),
    ).records
    assert [record.took_effect for record in records] == [True, None, None]
    others = inject(
        FakeSystem(3), episode("kill", "leader", 1.0, 5.0), episode("pause", "leader", 2.0, 3.0)
    ).records
    assert others[0].nodes != others[1].nodes


def test_a_fault_that_befalls_nobody_is_not_begun_and_does_not_count():
    system = FakeSystem(3)
    records = inject(
        system, episode("kill", "all", 1.0, 5.0), episode("pause", "one", 2.0, 3.0)
    ).records
    assert (records[1].took_effect, records[1].end) == (None, 2.0)
    assert "no node is left" in records[1].evidence


def test_a_fault_that_fails_half_way_is_given_up_and_its_node_goes_on():
    """Killed for the damage that then could not be done."""

    class Undamageable(FakeSystem):
        async def damage(self, node, how, seed):
            raise Refused("there is no file to damage")

    system = Undamageable(3)
    rot, kill = inject(
        system, episode("truncate", "n1"), episode("kill", "n1", 3.0, 4.0), heal=True
    ).records
    assert (rot.took_effect, rot.evidence) == (None, "not begun: there is no file to damage")
    assert (rot.begin, rot.end) == (1.0, 1.0)
    assert kill.took_effect is True
    deeds = [deed for deed in system.deeds if deed[:2] in (("kill", "n1"), ("revive", "n1"))]
    assert [word for word, _ in deeds] == ["kill", "revive", "kill", "revive"]


def test_partitions_and_other_faults_of_links_end_each_for_itself():
    system = FakeSystem(3)
    cuts = []

    async def scenario():
        loop = asyncio.get_running_loop()
        injector = Injector(system, random.Random(1), loop.time)
        running = asyncio.ensure_future(
            injector.run([episode("isolate", "all", 1, 4), episode("loss", "all", 2, 3, loss=0.5)])
        )
        for _ in range(5):
            await asyncio.sleep(0.9999)
            losses = {p["loss"] for links in system.links.values() for p in links.values()}
            cuts.append((len(system.cut()), losses))
        await running

    in_virtual_time(scenario())
    assert cuts == [(0, set()), (4, {0.0}), (4, {0.5}), (4, {0.0}), (0, {0.0})]


LINKS = [
    ("loss", {"loss": 0.1}, "lost"),
    ("burst", {"burst_begin": 0.1}, "burst"),
    ("delay", {"delay_s": 0.05}, "delayed"),
    ("duplicate", {"duplicate": 0.5}, "duplicated"),
    ("reorder", {"reorder": 0.5}, "reordered"),
    ("corrupt", {"corrupt": 0.5}, "corrupted"),
    ("rate", {"rate_bytes_s": 5000}, "throttled"),
    ("isolate", {"grudge": "isolate"}, "cut"),
]


@pytest.mark.parametrize(("fault", "values", "count"), LINKS)
def test_a_fault_of_links_counts_if_datagrams_show_it(fault, values, count):
    """Those of its own cause, and no others: nor those that were counted before it began."""
    system = FakeSystem(3)
    others = {other: 5 for _, _, other in LINKS if other != count}
    system.counts = {"passed": 100, "dropped": 9, count: 7}
    plan = episode(fault, **values)
    busy = later(1.5, system.counts, {"passed": 100, "dropped": 9, **others})
    (record,) = inject(system, plan, meanwhile=[busy]).records
    assert record.took_effect is False, record.evidence
    (record,) = inject(system, plan, meanwhile=[later(1.5, system.counts, {count: 1})]).records
    assert record.took_effect
    assert "datagrams" in record.evidence


DISKS = [
    ("full", {"full": True}, "full"),
    ("slow-disk", {"slow_s": 0.1}, "slow"),
    ("eio", {"eio_at": 3}, "eio"),
    ("torn", {"torn": True}, "torn"),
    ("lie", {"sync_lies": True}, "lies"),
]


@pytest.mark.parametrize(("fault", "values", "struck"), DISKS)
def test_a_fault_of_disks_counts_if_it_struck_while_it_lasted(fault, values, struck):
    system = FakeSystem()
    system.struck = {name: 4 for _, _, name in DISKS}  # by others, before
    (record,) = inject(system, episode(fault, **values)).records
    assert record.took_effect is False, record.evidence
    busy = later(1.5, system.struck, {struck: 2})
    (record,) = inject(system, episode(fault, **values), meanwhile=[busy]).records
    assert record.evidence == f"{record.nodes[0]}: {struck} 2 times"
    good = {name: type(value)() for name, value in values.items()}
    assert ("disk", record.nodes[0], str(good)) in system.deeds


def test_what_a_disk_counted_outlives_its_process():
    class Forgetful(FakeSystem):
        async def kill(self, node):
            self.struck.clear()
            return await super().kill(node)

    system = Forgetful(3)
    plan = [episode("full", "n1", 1, 5, full=True), episode("kill", "n1", 3, 4)]
    busy = [later(2.0, system.struck, {"full": 2}), later(4.5, system.struck, {"full": 1})]
    records = inject(system, *plan, meanwhile=busy).records
    assert records[0].evidence == "n1: full 3 times"


CRASH = {"point": "wal.append.before-sync", "after": 1}


def test_torn_writes_and_crash_points_do_not_claim_each_others_ends():
    """A process that gives up over its disk says so; one that dies at a line of code does not."""
    for how, evident in (("torn", [True, False]), ("gone", [False, True])):
        system = FakeSystem(3)
        plan = [episode("torn", "n1", 1, 5, torn=True), episode("crashpoint", "n1", 1, 5, **CRASH)]
        records = inject(system, *plan, meanwhile=[later(2.0, system.ends, {how: 1})]).records
        assert [record.took_effect for record in records] == evident, how


@pytest.mark.parametrize("how", ["torn", "eio"])
def test_of_two_faults_of_one_disk_that_counts_over_which_it_gave_up(how):
    system = FakeSystem(3)
    plan = [episode("torn", "n1", 1, 5, torn=True), episode("eio", "n1", 1, 5, eio_at=9)]
    records = inject(system, *plan, meanwhile=[later(2.0, system.ends, {how: 1})]).records
    assert {record.fault for record in records if record.took_effect} == {how}


def test_who_was_killed_by_another_has_not_died_of_its_disk():
    system = FakeSystem(3)
    plan = [
        episode("torn", "n1", 1, 5, torn=True),
        episode("crashpoint", "n1", 1, 5, **CRASH),
        episode("kill", "n1", 2, 3),
    ]
    torn, crash, kill = inject(system, *plan).records
    assert kill.took_effect
    assert torn.took_effect is crash.took_effect is False


@pytest.mark.parametrize(
    ("fault", "values", "told"),
    [
        ("jump", {"offset_s": -3600.0}, "wall clock off by -3600.00 s"),
        ("drift", {"rate": 2.0}, "steady clock ran 2.00 times as fast"),
        ("drift", {"rate": 0.9}, "steady clock ran 0.90 times as fast"),
    ],
)
def test_a_clock_counts_if_it_is_seen_to_be_off(fault, values, told):
    """Not because it says that it was set so."""
    (record,) = inject(FakeSystem(), episode(fault, "n2", **values)).records
    assert (record.took_effect, record.evidence) == (True, f"n2: {told}")
    deaf = FakeSystem()
    deaf.obeys = False
    (record,) = inject(deaf, episode(fault, "n2", **values)).records
    assert record.took_effect is False


def test_a_kill_that_kills_nothing_has_not_taken_effect():
    class Immortal(FakeSystem):
        async def kill(self, node):
            raise NoEffect(f"the process of {node} is still there")

    kill, pause = inject(Immortal(3), episode("kill", "n1"), episode("pause", "n2")).records
    assert (kill.took_effect, kill.evidence) == (False, "the process of n1 is still there")
    assert pause.took_effect is True


def test_of_several_nodes_those_count_that_it_befell():
    class Half(FakeSystem):
        async def kill(self, node):
            if node == "n2":
                raise NoEffect(f"{node} has no process")
            return await super().kill(node)

    system = Half(3)
    injector = inject(system, episode("kill", "all", 1.0, 5.0), episode("pause", "n2", 2.0, 3.0))
    kill, pause = injector.records
    assert (kill.nodes, kill.took_effect) == (["n1", "n3"], True)
    assert pause.took_effect is True  # nobody holds n2
    assert set(system.states.values()) == {"running"}


@pytest.mark.parametrize(("target", "unseated"), [("n1", True), ("all", True), ("n2", False)])
def test_a_leader_is_taken_away_by_what_really_befell_it(target, unseated):
    (record,) = inject(FakeSystem(3), episode("kill", target)).records
    assert record.unseated is unseated
    (record,) = inject(FakeSystem(3), episode("pause", target)).records
    assert record.unseated is False


def test_a_leader_that_could_not_be_killed_was_not_taken_away():
    class Immortal(FakeSystem):
        async def kill(self, node):
            if node == self.leader:
                raise NoEffect(f"the process of {node} is still there")
            return await super().kill(node)

    (record,) = inject(Immortal(3), episode("kill", "all")).records
    assert (record.nodes, record.took_effect, record.unseated) == (["n2", "n3"], True, False)


def test_what_was_begun_in_part_is_undone():
    class Deaf(FakeSystem):
        async def faults(self, node, change):
            if node == "n3" and any(part in change for part in ("disk", "links")):
                raise Refused("n3 did not take the fault")
            return await super().faults(node, change)

    system = Deaf(3)
    full, halves = inject(
        system, episode("full", "all", full=True), episode("halves", "all", 3.0, 4.0), heal=False
    ).records
    assert (full.took_effect, full.evidence) == (None, "not begun: n3 did not take the fault")
    assert halves.took_effect is None
    for node in ("n1", "n2"):
        disks = [deed[2] for deed in system.deeds if deed[:2] == ("disk", node)]
        assert disks == ["{'full': True}", "{'full': False}"]
    assert not system.cut()


def test_a_node_that_does_not_tell_keeps_nobody_from_mending():
    class Mute(FakeSystem):
        async def faults(self, node, change):
            if node == "n3" and not change and asyncio.get_running_loop().time() > 1.5:
                raise Refused("n3 does not answer")
            return await super().faults(node, change)

    system = Mute(3)
    busy = later(1.2, system.counts, {"cut": 4})
    (record,) = inject(system, episode("halves", "all"), heal=False, meanwhile=[busy]).records
    assert record.took_effect
    assert not system.cut()


def test_nothing_is_begun_when_all_has_been_healed():
    system = FakeSystem(3)

    async def scenario():
        loop = asyncio.get_running_loop()
        injector = Injector(system, random.Random(1), loop.time)
        running = asyncio.ensure_future(injector.run([episode("kill", "all", 5.0, 9.0)]))
        await asyncio.sleep(3)
        await injector.heal()
        await running
        return injector.records

    (record,) = in_virtual_time(scenario())
    assert (record.took_effect, record.evidence) == (
        None,
        "not begun: by then all had been healed",
    )
    assert set(system.states.values()) == {"running"}


@pytest.mark.parametrize(("fault", "excused"), [("loss", True), ("duplicate", False)])
def test_what_a_quorum_has_to_bear_does_not_excuse_it(fault, excused):
    injector = inject(FakeSystem(3), episode(fault, "all"))
    assert any(names for _, names in injector.harmed) == excused


@pytest.mark.parametrize("fault", ["truncate", "wipe", "old-copy"])
@pytest.mark.parametrize("starts", [True, False])
def test_a_node_is_started_on_what_is_left_where_nobody_hears_it(fault, starts):
    system = FakeSystem(3)
    system.notices = not starts
    heard = []

    class Watched(FakeSystem):
        async def revive(self, node):
            damaged = any(deed[0] == "damage" and deed[2] != "keep" for deed in self.deeds)
            if damaged:
                heard.append(self.cut())
            return await super().revive(node)

    system = Watched(3)
    system.notices = not starts
    (record,) = inject(system, episode(fault, "n2")).records
    assert heard == [{("n1", "n2"), ("n3", "n2"), ("n2", "n1"), ("n2", "n3")}]
    assert record.took_effect
    assert record.evidence.endswith(
        "apart from the others" if starts else "refused to start on that"
    )
    assert not system.cut()
    assert system.deeds[-1] != ("revive", "n2")
    assert ("replace", "n2") in system.deeds


def test_a_node_that_cannot_be_tried_out_is_replaced_all_the_same():
    class Stuck(FakeSystem):
        async def revive(self, node):
            if any(deed[0] == "damage" for deed in self.deeds):
                raise NotInTime("waited in vain")
            return await super().revive(node)

    system = Stuck(3)
    (record,) = inject(system, episode("wipe", "n2"), heal=False).records
    assert (record.took_effect, record.evidence) == (False, "could not be ended: waited in vain")
    assert not system.cut()


def test_a_damaged_file_must_be_noticed_and_the_node_is_replaced_until_it_works():
    system = FakeSystem()
    system.replaceable = False

    async def scenario():
        loop = asyncio.get_running_loop()
        injector = Injector(system, random.Random(1), loop.time)
        await injector.run([episode("bitflip", "n2")])
        assert injector.harmed[-1][1] == {"n2"}
        await asyncio.sleep(5)
        system.replaceable = True
        await injector.heal()
        return injector

    injector = in_virtual_time(scenario())
    assert injector.records[0].took_effect
    assert system.deeds.count(("replace", "n2")) > 3
    assert system.states["n2"] == "running"
    assert injector.harmed[-1][1] == frozenset()


def test_damage_that_nobody_needed_to_notice_proves_nothing():
    system = FakeSystem()
    system.notices = False
    (record,) = inject(system, episode("bitflip", "n2")).records
    assert record.took_effect is False
    assert "did not need" in record.evidence


def test_never_so_many_disks_are_lost_that_nobody_could_bear_it():
    system = FakeSystem(3)
    system.replaceable = False
    plan = [episode("wipe", "one", t, t + 0.5) for t in (1.0, 2.0, 3.0)]
    injector_records = []

    async def scenario():
        loop = asyncio.get_running_loop()
        injector = Injector(system, random.Random(1), loop.time)
        await injector.run(plan)
        injector_records.extend(injector.records)
        system.replaceable = True
        await injector.heal()

    in_virtual_time(scenario())
    assert [record.took_effect for record in injector_records] == [True, None, None]
    assert len({deed[1] for deed in system.deeds if deed[0] == "damage"}) == 1


def test_healing_ends_what_is_under_way_and_starts_who_is_down():
    system = FakeSystem()

    async def scenario():
        loop = asyncio.get_running_loop()
        injector = Injector(system, random.Random(1), loop.time)
        plan = [episode("kill", "n1", 1, 99), episode("halves", "all", 1, 99)]
        running = asyncio.ensure_future(injector.run(plan))
        await asyncio.sleep(3)
        assert system.cut()
        await injector.heal()
        running.cancel()
        return injector

    injector = in_virtual_time(scenario())
    assert set(system.states.values()) == {"running"}
    assert not system.cut()
    assert all(record.end == 3.0 for record in injector.records)


def test_a_majority_that_hears_itself_is_not_called_harmed():
    system = FakeSystem(5)
    system.counts = {"dropped": 1}
    injector = inject(system, episode("isolate", "all"))
    assert [len(harmed) for _, harmed in injector.harmed] == [0, 1, 0]


def test_a_leader_that_is_not_there_is_made_up_for():
    system = FakeSystem()
    system.leader = ""
    (record,) = inject(system, episode("kill", "leader")).records
    assert record.took_effect


def test_who_leaves_runs_on_and_joins_again_as_another():
    system = FakeSystem(5)
    (record,) = inject(system, episode("leave", "minority")).records
    assert record.took_effect
    assert len(record.nodes) == 2
    assert record.evidence == f"without {', '.join(record.nodes)}"
    assert system.deeds[0] == ("leave", *record.nodes)
    assert [deed for deed in system.deeds if deed[0] == "replace"] == [
        ("replace", name) for name in record.nodes
    ]
    assert not [deed for deed in system.deeds if deed[0] == "kill"]


def test_a_decision_that_nobody_heard_of_is_made_good_all_the_same():
    system = FakeSystem(3)
    system.decides = False
    injector = inject(system, episode("leave", "n2"))
    assert injector.records[0].took_effect is None
    assert system.deeds[:2] == [("leave", "n2"), ("replace", "n2")]
    assert injector.harmed[-1][1] == frozenset()


def test_who_left_is_a_copy_less_for_whoever_wants_to_harm_a_disk():
    system = FakeSystem(3)
    plan = [episode("leave", "n1", 1.0, 5.0), episode("wipe", "n2", 2.0, 3.0)]
    records = inject(system, *plan).records
    assert [record.took_effect for record in records] == [True, None]


def test_who_does_not_come_to_a_decision_over_a_flipped_bit_is_replaced_too():
    """On a machine so busy that it refuses, is started again, and refuses, until nobody waits."""

    class Dazed(FakeSystem):
        async def revive(self, node):
            if ("damage", node, "flip") in self.deeds and ("replace", node) not in self.deeds:
                raise NotInTime(f"waited 30 s for {node}, in vain")
            return await super().revive(node)

    system = Dazed(3)
    (record,) = inject(system, episode("bitflip", "n2")).records
    assert record.evidence == "could not be ended: waited 30 s for n2, in vain"
    assert ("replace", "n2") in system.deeds
    assert set(system.states.values()) == {"running"}


def test_what_costs_a_copy_waits_until_another_may_be_lost():
    """Where a machine is slow to replace who lost his files, nobody else would ever leave."""
    plan = [episode("wipe", "n2", 1.0, 3.2), episode("leave", "n1", 2.0, 5.0)]
    wiped, left = inject(FakeSystem(3), *plan).records
    assert (wiped.took_effect, left.took_effect) == (True, None)
    wiped, left = inject(FakeSystem(3), *plan, patience_s=10.0).records
    assert (wiped.took_effect, left.took_effect) == (True, True)
    # It begins when its turn comes, and lasts as long as it would have.
    assert 3.2 <= left.begin < 4.3
    assert left.end == pytest.approx(left.begin + 3.0)


@pytest.mark.parametrize(("patience_s", "began"), [(3.0, False), (5.0, True)])
def test_it_waits_for_so_long_and_then_says_what_it_has_waited_for(patience_s, began):
    plan = [episode("leave", "n2", 1.0, 6.0), episode("wipe", "n1", 2.0, 3.0)]
    _, wiped = inject(FakeSystem(3), *plan, patience_s=patience_s).records
    assert wiped.took_effect is (True if began else None)
    if not began:
        assert wiped.evidence == "not begun: as many copies as can be spared are lost already"
        assert wiped.end == pytest.approx(5.0, abs=0.6)


def test_other_faults_do_not_wait_or_they_would_all_come_at_once():
    plan = [episode("kill", "all", 1.0, 5.0), episode("pause", "one", 2.0, 3.0)]
    _, paused = inject(FakeSystem(3), *plan, patience_s=10.0).records
    assert (paused.took_effect, paused.end) == (None, 2.0)


def test_who_still_waits_when_all_is_healed_is_not_begun():
    async def scenario():
        loop = asyncio.get_running_loop()
        injector = Injector(FakeSystem(3), random.Random(1), loop.time, patience_s=60.0)
        plan = [episode("leave", "n2", 1.0, 30.0), episode("wipe", "n1", 2.0, 3.0)]
        running = asyncio.create_task(injector.run(plan))
        await asyncio.sleep(4.0)
        await injector.heal()
        running.cancel()
        return injector.records[1]

    wiped = in_virtual_time(scenario())
    assert wiped.took_effect is None
    assert "as many copies as can be spared" in wiped.evidence
