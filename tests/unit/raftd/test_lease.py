"""Leases: the leader's count of what is left, beside a dictionary; and what goes with a lease."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from storage_kit import Applier, restored

from raftd import commands as c
from raftd.lease import REVOKING_MAX, LeaseKeeper
from raftd.store import FAILED, OK

IDS = st.integers(1, 3)


class KeeperMachine(RuleBasedStateMachine):
    """Times are whole seconds, so that equal deadlines happen."""

    def __init__(self) -> None:
        super().__init__()
        self.keeper = LeaseKeeper()
        self.now = 0.0
        self.deadlines: dict[int, float] = {}
        self.revoking: set[int] = set()

    @rule(seconds=st.integers(0, 2))
    def wait(self, seconds: int) -> None:
        self.now += seconds

    @rule(lease=IDS, ttl_s=st.integers(1, 3))
    def keep(self, lease: int, ttl_s: int) -> None:
        if lease not in self.revoking:
            self.keeper.keep(lease, ttl_s, self.now)
            self.deadlines[lease] = self.now + ttl_s

    @rule()
    def take_expired(self) -> None:
        taken = self.keeper.take_expired(self.now)
        due = {x for x, at in self.deadlines.items() if at <= self.now} - self.revoking
        assert set(taken) == due
        assert len(taken) == len(due), "each once"
        assert taken == sorted(taken, key=lambda x: (self.deadlines[x], x))
        self.revoking |= due

    @rule(lease=IDS)
    def gone(self, lease: int) -> None:
        """Revoked by the command just proposed, or by somebody's own."""
        self.keeper.gone(lease)
        self.deadlines.pop(lease, None)
        self.revoking.discard(lease)

    @precondition(lambda self: self.revoking)
    @rule(data=st.data())
    def the_proposal_fails(self, data: st.DataObject) -> None:
        lease = data.draw(st.sampled_from(sorted(self.revoking)))
        self.keeper.not_revoked(lease, self.now)
        self.revoking.discard(lease)
        self.deadlines[lease] = self.now + 1

    @rule(leases=st.dictionaries(IDS, st.integers(1, 3)))
    def be_elected(self, leases: dict[int, int]) -> None:
        self.keeper.start(leases, self.now)
        self.deadlines = {lease: self.now + ttl_s for lease, ttl_s in leases.items()}
        self.revoking = set()

    @invariant()
    def the_rest_is_known(self) -> None:
        for lease in range(1, 4):
            left = max(0.0, self.deadlines.get(lease, self.now) - self.now)
            assert self.keeper.remaining(lease, self.now) == left

    @invariant()
    def the_next_deadline_is_the_earliest(self) -> None:
        counted = [at for lease, at in self.deadlines.items() if lease not in self.revoking]
        assert self.keeper.next_deadline() == min(counted, default=None)


KeeperMachine.TestCase.settings = settings(
    max_examples=150,
    stateful_step_count=40,
    deadline=None,
    database=None,
)
TestKeeperMachine = KeeperMachine.TestCase


# -- the leader


def test_a_lease_runs_out_at_its_time_and_not_before():
    keeper = LeaseKeeper()
    keeper.keep(1, 10, 100.0)
    assert keeper.take_expired(109.999) == []
    assert keeper.remaining(1, 109.0) == 1.0
    assert keeper.take_expired(110.0) == [1]
    assert keeper.take_expired(200.0) == []


def test_a_lease_that_is_kept_alive_does_not_run_out():
    keeper = LeaseKeeper()
    for now in range(0, 100, 9):
        keeper.keep(1, 10, float(now))
        assert keeper.take_expired(float(now)) == []
    assert keeper.take_expired(108.9) == []
    assert keeper.take_expired(109.0) == [1]


def test_a_lease_renewed_to_the_same_deadline_is_revoked_once():
    """Two renewals in one turn of the loop have one time."""
    keeper = LeaseKeeper()
    for _ in range(3):
        keeper.keep(1, 10, 0.0)
    assert keeper.take_expired(10.0) == [1]
    assert keeper.next_deadline() is None


def test_a_new_leader_gives_each_its_full_time():
    keeper = LeaseKeeper()
    keeper.keep(9, 1, 0.0)
    keeper.start({1: 10, 2: 20}, 50.0)
    assert keeper.take_expired(59.0) == []
    assert (keeper.remaining(1, 50.0), keeper.remaining(2, 50.0)) == (10.0, 20.0)
    assert keeper.take_expired(70.0) == [1, 2]


def test_so_many_are_revoked_at_a_time_and_the_others_soon_after():
    keeper = LeaseKeeper()
    keeper.start(dict.fromkeys(range(1, 3 * REVOKING_MAX), 5), 0.0)
    first = keeper.take_expired(5.0)
    assert first == list(range(1, REVOKING_MAX + 1))
    assert keeper.take_expired(5.0) == []
    for lease in first[:10]:
        keeper.gone(lease)
    assert keeper.take_expired(5.0) == list(range(REVOKING_MAX + 1, REVOKING_MAX + 11))


def test_a_revocation_that_failed_is_tried_again_in_a_second():
    keeper = LeaseKeeper()
    keeper.keep(1, 5, 0.0)
    assert keeper.take_expired(5.0) == [1]
    keeper.not_revoked(1, 6.0)
    assert keeper.take_expired(6.5) == []
    assert keeper.take_expired(7.0) == [1]


def test_a_revocation_that_failed_after_all_does_not_bring_a_lease_back():
    keeper = LeaseKeeper()
    keeper.keep(1, 5, 0.0)
    keeper.take_expired(5.0)
    keeper.gone(1)
    keeper.not_revoked(1, 5.0)
    assert keeper.take_expired(100.0) == []
    assert keeper.next_deadline() is None


def test_a_lease_that_is_being_revoked_cannot_be_promised_more_time():
    """Its holder would believe in a lock that is about to go."""
    keeper = LeaseKeeper()
    keeper.keep(1, 60, 0.0)
    assert keeper.take_expired(60.0) == [1]
    keeper.keep(1, 60, 60.1)
    assert keeper.remaining(1, 60.1) == 0


def test_renewals_take_no_room():
    keeper = LeaseKeeper()
    keeper.keep(1, 1_000, 0.0)
    for beat in range(10_000):
        keeper.keep(2, 2_000, beat / 100)
        keeper.take_expired(beat / 100)
    assert len(keeper._heap) < 100


def test_a_keeper_says_what_it_is():
    keeper = LeaseKeeper()
    keeper.start({1: 5, 2: 9}, 0.0)
    keeper.take_expired(5.0)
    assert repr(keeper) == "<LeaseKeeper 2 revoking=1>"


# -- the store


def test_the_store_tells_of_grants_and_revocations_as_they_are_applied():
    applier, told = Applier(), []
    applier.store.on_lease = lambda lease, ttl_s: told.append((lease, ttl_s))
    applier(c.LEASE_GRANT, 7, 60)
    applier(c.LEASE_GRANT, 7, 99)
    applier(c.LEASE_REVOKE, 8)
    applier(c.LEASE_REVOKE, 7)
    assert told == [(7, 60), (7, 0)]


def test_a_key_belongs_to_the_lease_of_its_last_put():
    applier = Applier()
    for lease in (1, 2):
        applier(c.LEASE_GRANT, lease, 60)
    applier.put(b"a", b"", 1)
    applier.put(b"b", b"", 1)
    applier.put(b"c", b"", 1)
    applier.put(b"a", b"", 2)  # moved
    applier.put(b"b")  # let go
    assert applier.store.keys_of_lease(1) == [b"c"]
    assert applier(c.LEASE_REVOKE, 1) == [OK, 6, 1]
    assert applier.store.get(b"c") is None
    assert applier.store.get(b"b") is not None
    assert applier.store.keys_of_lease(2) == [b"a"]


def test_a_lease_without_keys_goes_without_a_revision():
    applier = Applier()
    applier(c.LEASE_GRANT, 1, 60)
    applier.put(b"a", b"", 1)
    applier.delete(b"a")
    assert applier(c.LEASE_REVOKE, 1) == [OK, 2, 0]
    assert applier.store.revision == 2


def test_a_lease_that_was_revoked_can_be_granted_again_without_its_old_keys():
    applier = Applier()
    applier(c.LEASE_GRANT, 1, 60)
    applier.put(b"a", b"", 1)
    applier(c.LEASE_REVOKE, 1)
    assert applier(c.LEASE_GRANT, 1, 5) == [OK, 2, 1, 5]
    assert applier.store.keys_of_lease(1) == []
    assert applier(c.LEASE_GRANT, 1, 5)[:2] == [FAILED, "lease-exists"]


def test_leases_and_their_keys_go_through_a_snapshot():
    applier = Applier()
    for lease in (1, 2):
        applier(c.LEASE_GRANT, lease, 60 * lease)
    applier.put(b"a", b"", 1)
    applier.put(b"b", b"", 2)
    applier.put(b"b")
    store = restored(applier.store)
    assert store.leases == {1: 60, 2: 120}
    assert (store.keys_of_lease(1), store.keys_of_lease(2)) == ([b"a"], [])
    applier.store = store
    assert applier(c.LEASE_REVOKE, 1) == [OK, 4, 1]
