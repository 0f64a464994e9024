"""An ordinary DistributedDataParallel script: the backend is a word on its command line.

python ddp_torch_script.py BACKEND RANK SIZE PORT OUT [STEPS]
"""

import os
import sys
import time

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

backend, rank, size, port, out = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:6]
steps = int(sys.argv[6]) if len(sys.argv) > 6 else 5
width = int(sys.argv[7]) if len(sys.argv) > 7 else 32
torch.set_num_threads(1)
os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
dist.init_process_group(backend, rank=rank, world_size=size)

torch.manual_seed(0)
layers = [layer for _ in range(3) for layer in (nn.Linear(width, width), nn.ReLU())]
model = DistributedDataParallel(nn.Sequential(*layers, nn.Linear(width, 10)))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
torch.manual_seed(100 + rank)
losses = []
began = time.perf_counter()
for _ in range(steps):
    data, labels = torch.randn(16, width), torch.randint(0, 10, (16,))
    optimizer.zero_grad()
    loss = nn.functional.cross_entropy(model(data), labels)
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
elapsed = time.perf_counter() - began

gathered = [torch.zeros(1) for _ in range(size)]
dist.all_gather(gathered, torch.tensor([float(rank)]))
assert [int(t) for t in gathered] == list(range(size))
half = torch.full((3,), rank + 1.0, dtype=torch.bfloat16)
dist.all_reduce(half)
assert half.tolist() == [size * (size + 1) / 2] * 3
if size > 1:
    if rank == 0:
        dist.send(torch.arange(4), 1)
    elif rank == 1:
        found = torch.zeros(4, dtype=torch.int64)
        dist.recv(found, 0)
        assert found.tolist() == [0, 1, 2, 3]
dist.barrier()
torch.save(
    {"state": model.module.state_dict(), "losses": losses, "rate": steps / elapsed}, f"{out}.{rank}"
)
dist.destroy_process_group()
