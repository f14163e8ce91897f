"""How long a real Slurm takes on this machine, from the start of its daemons to the result of the course's job and on.

    python benchmarks/slurm.py

Four scenes (`parallel_lab.systems.scheduling.slurm_run`) are played on four nodes of eight counted GPUs: a training job
under `srun` with backfilling beside it, preemption, the loss of a node, a reservation and a drained node. The limit is
60 s for all of them, the end of all daemons included. Root and Debian's `slurm-wlm` and `munge` are needed.

The second table has what the settings decide: `SlurmdTimeout` 6 s until a silent node counts as lost, and
`cred_expire` 5 s for which a requeued job is held back. Slurm's defaults are 300 s and 120 s.
"""

import sys

from parallel_lab.systems.scheduling.slurm_run import SlurmRun, run_slurm

LIMIT_S = 60.0


def first(run: SlurmRun, job: str, state: str, after_s: float = 0.0) -> float:
    """When the queue first showed a job in a state after a moment."""
    return next(
        each.time_s
        for each in run.changes
        if each.line.name == job and each.line.state == state and each.time_s > after_s
    )


def intervals(run: SlurmRun) -> dict[str, float]:
    """What the scenes let one measure, in seconds; each one to the 0.2 s between two looks at the queue."""
    (urgent,), (_, low), (pair, again) = run.starts("urgent"), run.starts("low"), run.starts("pair")
    requeued, silent = first(run, "low", "PENDING", run.starts("low")[0]), first(run, "pair", "COMPLETING", pair)
    return {
        "daemons started -> first job submitted": run.changes[0].time_s,
        "training job submitted -> its result": first(run, "train", "COMPLETED") - run.changes[0].time_s,
        "urgent job submitted -> runs": urgent - first(run, "urgent", "PENDING"),
        "preempted job requeued -> runs again": low - requeued,
        "job starts, its node is lost -> noticed": silent - pair,
        "loss noticed -> runs on other nodes": again - silent,
    }


def main() -> int:
    """Prints the queue, what it took, and whether the limit holds."""
    run = run_slurm()
    print(run.table())
    if run.reason:
        return 0
    print(run.printed["train"])
    for what, seconds in intervals(run).items():
        print(f"{what:<50} {seconds:6.1f} s")
    print(f"start to end {run.wall_s:.1f} s, limit {LIMIT_S:.0f} s: {'holds' if run.wall_s <= LIMIT_S else 'MISSED'}")
    return int(run.wall_s > LIMIT_S)


if __name__ == "__main__":
    sys.exit(main())
