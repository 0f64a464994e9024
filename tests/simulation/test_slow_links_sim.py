"""A large value over slow links: it takes as long as its bytes take, and costs no leader."""

from __future__ import annotations

import pytest
import store_kit

from netstack.runtime.policy import LinkPolicy

RATE = 100_000
VALUE = bytes(400_000)


def slow_down(store: store_kit.Store) -> None:
    for name in store_kit.NAMES:
        links = store.world.nodes[name].runtime.faults.links
        for other in store.config.nodes:
            if other.name != name:
                links.set(other.address, LinkPolicy(rate_bytes_s=RATE))


def term(store: store_kit.Store) -> int:
    return max(service.replica.core.term for service in store.services.values())


async def took(store: store_kit.Store, call) -> float:
    began = store.world.now
    await call
    return store.world.now - began


def test_values_of_400_kb_pass_one_after_the_other_and_the_leader_stays():
    async def scenario(store: store_kit.Store):
        client = await store.client()
        before = term(store)
        slow_down(store)
        for _ in range(2):
            # As long as the link needs, seals and acknowledgements included.
            assert await took(store, client.put(b"big", VALUE)) < 1.1 * len(VALUE) / RATE
        # Nothing of them is under way a second time.
        assert await took(store, client.put(b"small", b"value")) < 0.2
        assert term(store) == before

    store_kit.run(scenario)


@pytest.mark.slow
def test_links_that_were_fast_and_carried_much_cost_one_election_at_the_most():
    """The first packet of 65 kB holds the link for 0.65 s: nothing has told that it is slow."""

    async def scenario(store: store_kit.Store):
        client = await store.client()
        for _ in range(4):
            await client.put(b"big", bytes(1_000_000))
        before = term(store)
        slow_down(store)
        assert await took(store, client.put(b"big", VALUE)) < 1.3 * len(VALUE) / RATE
        assert await took(store, client.put(b"big", VALUE)) < 1.1 * len(VALUE) / RATE
        assert term(store) <= before + 1

    store_kit.run(scenario)
