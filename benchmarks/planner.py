"""How long the planner searches: every scheme of 1,024 GPUs in at most 10 s of one core.

Run: python benchmarks/planner.py
Times are processor seconds of this process, which has one thread. Besides: how many families and schemes there are, how
many were opened and priced, and what one estimate takes. A mixture of experts has one more axis.
"""

import sys
import time

from parallel_lab.planner.clusters import cluster
from parallel_lab.planner.estimate import estimate
from parallel_lab.planner.models import model
from parallel_lab.planner.search import search
from parallel_lab.planner.words import words

LIMIT_S = 10.0
JOBS = [  # model, cluster, accelerators, sequences of a step
    ("llama3-8b", "h100-ib", 64, 512),
    ("llama3-70b", "h100-ib", 1024, 512),
    ("llama3-405b", "h100-roce", 1024, 1024),
    ("gpt3-175b", "a100-selene", 1024, 1536),
    ("mixtral-8x7b", "h100-ib", 1024, 1024),
]


def main() -> int:
    """Prints a table; 1 if a search is over its limit."""
    print(
        f"{'model':<14}{'GPUs':>6}{'families':>10}{'opened':>8}{'priced':>8}{'estimate':>10}{'search':>9}  best scheme"
    )
    missed = 0
    for name, of, gpus, batch in JOBS:
        shape, machine = model(name), cluster(of, gpus=gpus)
        began_s = time.process_time()
        found = search(shape, machine, batch)
        took_s = time.process_time() - began_s
        began_s = time.process_time()
        for _ in range(20):
            one = estimate(shape, machine, found.best.scheme, batch)
            assert one.step_s > 0 and one.fits  # computed when asked for
        each_s = (time.process_time() - began_s) / 20
        counts = f"{found.families:>10,}{found.opened:>8,}{found.priced:>8,}"
        print(f"{name:<14}{gpus:>6}{counts}{1e3 * each_s:>7.2f} ms{took_s:>7.2f} s  {words(found.best.scheme)}")
        missed |= took_s > LIMIT_S
    print(f"limit: {LIMIT_S:.0f} s each: {'MISSED' if missed else 'kept'}")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
