"""`torch.distributed` over our groups: backend "ring".

    dist.init_process_group("ring")              # torchrun, or any rendezvous, as for gloo
    model = DistributedDataParallel(model)       # unmodified

Installed beside torch the name is known without an import (entry point `torch.backends`); `import
ddp.torch_backend` does the same. Tested with torch 2.13.0, on CPU tensors. What DDP needs and
most of the rest is here: broadcast, allreduce, allgather, reduce, reduce_scatter, all-to-all,
barrier, send, recv, and their single-tensor forms.

Ranks of one host share memory. Across hosts they use netstack; the certificates for it are made
by rank 0 and handed out through the rendezvous store, so whoever can read the store can join, as
with torch itself. Who meets in raftd (`init_method="raft://…"`, torch_store.py) has those of the
cluster instead. Beyond one machine, or with GPUs, the same script runs on gloo or NCCL by
changing that one word.

Calls go on in a thread of ours while autograd goes on in its own; DDP's buckets overlap with
backward.
"""

from __future__ import annotations

import datetime
import json
import os
import tempfile
from pathlib import Path
from typing import Any, Final

from ddp.card import Card, share_memory
from ddp.group import Group
from ddp.own_identity import own_identity
from ddp.rank import Rank
from ddp.segment import usable

NAME: Final = "ring"
SERVICE: Final = "ddp"  # in certificates

# "network" insists on netstack between ranks of one host too.
TRANSPORT_VARIABLE: Final = "RING_DDP_TRANSPORT"


def register() -> None:
    """Make the name known to torch.distributed; again does nothing."""
    import torch.distributed as dist

    if dist.is_available() and not hasattr(dist.Backend, NAME.upper()):
        dist.Backend.register_backend(NAME, _create, devices=["cpu"])
        dist.register_rendezvous_handler("raft", _rendezvous)


def _rendezvous(url: str, **options: Any) -> Any:
    """Imported when it is used: torch loads this package for every script."""
    from ddp.torch_store import rendezvous

    return rendezvous(url, **options)


def _create(store: Any, rank: int, size: int, timeout: datetime.timedelta) -> Any:
    """What init_process_group and new_group call, once on each member."""
    from ddp.torch_group import RingProcessGroup

    return RingProcessGroup(*_join(store, rank, size, timeout.total_seconds()))


def _join(store: Any, rank: int, size: int, timeout_s: float) -> tuple[Rank, Group]:
    if os.environ.get(TRANSPORT_VARIABLE) != "network" and usable():
        own = Rank(f"r{rank}", size, transport="shared")
        cards = _exchange(store, "memory", rank, size, own.card)
        if share_memory(cards):
            return own, own.join(cards, rank, timeout_s=timeout_s)
        own.close()
    from ddp.torch_store import RaftStore, beneath

    if isinstance(found := beneath(store), RaftStore):
        name = f"{found.run}-torch-r{rank}"
        own_identity(found.home, name, SERVICE)
        own = Rank(name, size, home=found.home, transport="network")
        cards = _exchange(store, "network", rank, size, own.card)
        return own, own.join(cards, rank, timeout_s=timeout_s)
    with tempfile.TemporaryDirectory(prefix="ring-torch-") as folder:
        home = Path(folder)
        _identities(store, rank, size, home)
        own = Rank(f"r{rank}", size, home=home, transport="network")
        cards = _exchange(store, "network", rank, size, own.card)
        return own, own.join(cards, rank, timeout_s=timeout_s)


def _exchange(store: Any, what: str, rank: int, size: int, card: Card) -> list[Card]:
    store.set(f"ring/{what}/{rank}", json.dumps(card.to_wire()))
    return [Card.from_wire(json.loads(store.get(f"ring/{what}/{other}"))) for other in range(size)]


def _identities(store: Any, rank: int, size: int, home: Path) -> None:
    """Rank 0 makes them all; each takes its own files out of the store."""
    from ddp.launch import make_identities

    shared = ("ca/cert", "ca/revoked")
    if rank == 0:
        make_identities(home, size)
        for other in range(size):
            names = [f"nodes/r{other}/key", f"nodes/r{other}/cert", *shared]
            files = {name: (home / name).read_text() for name in names}
            store.set(f"ring/identity/{other}", json.dumps(files))
        return
    for name, text in json.loads(store.get(f"ring/identity/{rank}")).items():
        path = home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.write_text(text)


register()
