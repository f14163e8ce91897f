"""The fault campaign: random faults on small jobs of 2 to 4 ranks, each judged; fails where one ends wrongly.

    python benchmarks/faults.py --runs 1000 --seed 0

Run k has the seed S + k, which draws all of it: what, whom, when, while what. A seed that ended wrongly is printed with
the command that repeats it alone.
"""

import argparse
import sys

from parallel_lab import progress
from parallel_lab.systems.resilience import Campaign, Case, Ground, strike


def main() -> None:
    """Runs the campaign and prints its table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0, help="of the first run")
    arguments = parser.parse_args()
    seeds = range(arguments.seed, arguments.seed + arguments.runs)
    verdicts = []
    with Ground() as ground:
        for seed in progress(seeds, "faults"):
            verdicts.append(verdict := strike(Case.draw(seed), ground))
            if not verdict.right or arguments.runs == 1:
                print(verdict, *verdict.report.splitlines(), sep="\n    ", flush=True)
    done = Campaign(tuple(verdicts))
    print(f"seeds {seeds.start} to {seeds.stop - 1}\n{done}")
    if done.wrong:
        sys.exit(f"{len(done.wrong)} of {len(verdicts)} ended wrongly")


if __name__ == "__main__":
    main()
