"""Runs a script as torchrun does, in ranks forked from one process that has torch: `forked.py SCRIPT RANKS ARGUMENTS`.

Under torchrun each rank and the agent load torch anew, which is nearly all that such a test costs. A script runs under
torchrun in one case, and here in the others.
"""

import os
import runpy
import signal
import sys
import traceback

import sklearn.datasets  # noqa: F401  (loaded once, before the ranks are forked)
import torch.distributed as dist


def rank(number: int, ranks: int, port: int, script: str, arguments: list[str]) -> int:
    """What one rank does, with the environment that torchrun gives; returns its exit code."""
    place = {"RANK": number, "LOCAL_RANK": number, "WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks, "MASTER_PORT": port}
    # The store is the parent's, as it is the agent's under torchrun.
    os.environ.update({name: str(value) for name, value in place.items()}, MASTER_ADDR="127.0.0.1")
    os.environ |= {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0"}
    sys.argv = [script, *arguments]
    try:
        runpy.run_path(script, run_name="__main__")
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def main(script: str, ranks: int, arguments: list[str]) -> int:
    """Forks the ranks, then tells them the port of the store; 1 where one of them fails, and the others are ended."""
    reading, writing = os.pipe()
    children = []
    for number in range(ranks):
        if (child := os.fork()) == 0:
            os.close(writing)  # else no rank would see that the parent is gone
            code = rank(number, ranks, int(os.read(reading, 8)), script, arguments)
            sys.stdout.flush()
            os._exit(code)
        children.append(child)
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    for _ in children:
        os.write(writing, b"%08d" % store.port)
    left, failed = set(children), False
    while left:
        ended, status = os.wait()
        left.discard(ended)
        if status and not failed:
            failed = True
            for child in left:
                os.kill(child, signal.SIGKILL)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), sys.argv[3:]))
