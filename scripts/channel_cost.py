"""What the secure channel costs: `python scripts/channel_cost.py`.

Each line also times the bare cipher of `cryptography`, in turn with ours; the best round of each
counts, since all that can disturb a round makes it longer.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable

from security.channel import SUITES, Handshake, Session
from security.identity import Authority, Identity
from security.noise import CIPHERS, NONCE_FORMAT, public_bytes

ROUNDS = 40
PACKETS = 1_000
HANDSHAKES = 10
HEADER = bytes(17)


def best_us(count: int, *works: Callable[[], None]) -> list[float]:
    best = [float("inf")] * len(works)
    for _ in range(ROUNDS):
        for i, work in enumerate(works):
            begin = time.perf_counter()
            work()
            best[i] = min(best[i], time.perf_counter() - begin)
    return [seconds / count * 1e6 for seconds in best]


def handshake(first: Identity, second: Identity, pattern: str) -> tuple[Session, Session]:
    now = time.time()
    common = {"pattern": pattern, "service": "raft", "suite": "AESGCM", "now": now}
    known = public_bytes(second.static_key) if pattern == "IK" else None
    a = Handshake(first, initiator=True, entropy=os.urandom, remote_static=known, **common)
    b = Handshake(second, initiator=False, entropy=os.urandom, **common)
    writer, reader = a, b
    while not (a.finished and b.finished):
        reader.read_message(writer.write_message())
        writer, reader = reader, writer
    return a.session(), b.session()


def packets(suite: str, size: int) -> None:
    keys = os.urandom(32), os.urandom(32)
    sender, receiver = Session(suite, *keys), Session(suite, *reversed(keys))
    plaintext, total = bytes(size), ROUNDS * PACKETS
    sealed = [sender.seal(number, HEADER, plaintext) for number in range(total)]
    numbers, unopened = iter(range(total, 2 * total)), iter(range(total))

    def seal() -> None:
        one = sender.seal
        for number in itertools.islice(numbers, PACKETS):
            one(number, HEADER, plaintext)

    def open_() -> None:
        one = receiver.open
        for number in itertools.islice(unopened, PACKETS):
            one(number, 0, HEADER, sealed[number])

    cipher, nonce = CIPHERS[suite](keys[0]), NONCE_FORMAT[suite](0)
    ciphertext = cipher.encrypt(nonce, plaintext, HEADER)

    def bare_seal() -> None:
        for _ in range(PACKETS):
            cipher.encrypt(nonce, plaintext, HEADER)

    def bare_open() -> None:
        for _ in range(PACKETS):
            cipher.decrypt(nonce, ciphertext, HEADER)

    ours, bare, ours_open, bare_open_ = best_us(PACKETS, seal, bare_seal, open_, bare_open)
    print(
        f"{suite:<11}{size:>6} B   seal {ours:5.2f} µs (bare {bare:5.2f})"
        f"   open {ours_open:5.2f} µs (bare {bare_open_:5.2f})"
    )


def main() -> None:
    for suite in SUITES:
        for size in (200, 1_200, 16_000):
            packets(suite, size)
    authority = Authority.create("cost", now=time.time(), entropy=os.urandom)
    first, second = (
        authority.issue(name, "raft", now=time.time(), entropy=os.urandom) for name in ("n1", "n2")
    )
    for pattern in ("XX", "IK"):

        def several(pattern: str = pattern) -> None:
            for _ in range(HANDSHAKES):
                handshake(first, second, pattern)

        (cost_us,) = best_us(HANDSHAKES, several)
        print(f"{pattern} handshake, both sides together {cost_us / 1e3:.2f} ms")


if __name__ == "__main__":
    main()
