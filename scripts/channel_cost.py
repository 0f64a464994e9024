"""What the secure channel costs: `python scripts/channel_cost.py`. Best of several rounds.

Each line also times the bare cipher of `cryptography`, so that the difference is our own.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from security.channel import SUITES, Handshake, Session
from security.identity import Authority, Identity
from security.noise import CIPHERS, NONCE_FORMAT, public_bytes

ROUNDS = 7
PACKETS = 5_000
HANDSHAKES = 50
HEADER = bytes(17)


def best_us(work: Callable[[], None], count: int) -> float:
    times = []
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return min(times) / count * 1e6


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
    plaintext, sealed, state = bytes(size), [], {"sent": 0, "opened": 0}

    def seal() -> None:
        begin, one = state["sent"], sender.seal
        sealed.extend([one(n, HEADER, plaintext) for n in range(begin, begin + PACKETS)])
        state["sent"] += PACKETS

    def open_() -> None:
        begin, one = state["opened"], receiver.open
        for number in range(begin, begin + PACKETS):
            one(number, 0, HEADER, sealed[number])
        state["opened"] += PACKETS

    cipher, nonce = CIPHERS[suite](keys[0]), NONCE_FORMAT[suite](0)
    ciphertext = cipher.encrypt(nonce, plaintext, HEADER)

    def bare_seal() -> None:
        for _ in range(PACKETS):
            cipher.encrypt(nonce, plaintext, HEADER)

    def bare_open() -> None:
        for _ in range(PACKETS):
            cipher.decrypt(nonce, ciphertext, HEADER)

    seal_us, open_us = best_us(seal, PACKETS), best_us(open_, PACKETS)
    print(
        f"{suite:<11}{size:>6} B   seal {seal_us:6.2f} µs (bare {best_us(bare_seal, PACKETS):6.2f})"
        f"   open {open_us:6.2f} µs (bare {best_us(bare_open, PACKETS):6.2f})"
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

        print(
            f"{pattern} handshake, both sides together {best_us(several, HANDSHAKES) / 1e3:.2f} ms"
        )


if __name__ == "__main__":
    main()
