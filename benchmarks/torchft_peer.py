"""The same death under torchft (`recovery.py` runs this): replica groups of one rank each, and a lighthouse.

python benchmarks/torchft_peer.py FOLDER RANKS STEPS DIES
"""

import os
import re
import signal
import subprocess
import sys
from datetime import timedelta

import torch
import torch.distributed as dist
from torchft import DistributedDataParallel, Manager, Optimizer, ProcessGroupGloo
from torchft.coordination import LighthouseServer

from parallel_lab.systems.resilience import goodput


def replica(folder: str, ranks: int, steps: int, dies: int, rank: int) -> None:
    """Trains until the last step; rank 2 dies once all take part and `dies` steps are done."""
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # or torchft waits without a word
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port), "RANK": "0", "WORLD_SIZE": "1"}
    net = torch.nn.Linear(64, 10)
    manager = Manager(
        pg=ProcessGroupGloo(timeout=timedelta(seconds=10)),
        min_replica_size=1,
        load_state_dict=net.load_state_dict,
        state_dict=net.state_dict,
        replica_id=f"replica{rank}",
        timeout=timedelta(seconds=30),
    )
    model = DistributedDataParallel(manager, net)
    optimizer = Optimizer(manager, torch.optim.SGD(net.parameters(), lr=0.01))
    while (step := manager.current_step()) < steps:
        optimizer.zero_grad()
        loss = model(torch.ones(8, 64)).sum()
        if rank == 2 and step >= dies:
            goodput.note(f"{folder}/log", "killed")
            os.kill(os.getpid(), signal.SIGKILL)
        loss.backward()
        optimizer.step()
        if manager.current_step() > step and rank == 0:
            print(f"step {step}: {manager.num_participants()} take part", flush=True)
            goodput.note(f"{folder}/log", "step", step)
    os._exit(0)


def main(folder: str, ranks: str, *numbers: str) -> None:
    """Starts the lighthouse and the replicas, and waits for them."""
    house = LighthouseServer(bind="127.0.0.1:0", min_replicas=int(ranks) - 1, join_timeout_ms=1000)
    address = re.sub(r"//[^:/]+:", "//127.0.0.1:", house.address())
    environment = os.environ | {"TORCHFT_LIGHTHOUSE": address, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, folder, ranks, *numbers]
    started = [subprocess.Popen([*command, str(rank)], env=environment) for rank in range(int(ranks))]
    try:
        for each in started:
            each.wait(timeout=120)
    finally:
        for each in started:
            each.kill()
            each.wait()
        house.shutdown()


if __name__ == "__main__":
    if len(sys.argv) == 6:
        replica(sys.argv[1], *map(int, sys.argv[2:]))
    main(*sys.argv[1:])
