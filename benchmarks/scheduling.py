"""How fast the simulated cluster is, whether it meets the closed form, and whether its policies stand in a known order.

    python benchmarks/scheduling.py

1. 2,000 jobs on 176 GPUs under each policy: processor seconds, the best of three, at most 1 s. The jobs are those of
   gavel's trace where it is there (`../shared/data`, or the folder in PARALLEL_LAB_DATA), and drawn from its summary
   otherwise. Beside it what each policy comes to.
2. M/M/k: mean completion times of 8 runs of 60,000 jobs over the closed form at the rate and the mean duration that
   were drawn, with the standard error of the mean; at most 1 % off.
3. The order FIFO, shortest first (strictly), shortest remaining first that the authors of Helios got on each of
   Philly's virtual clusters with their simulator (`published.csv`), on the jobs of the same months. The file here has
   fewer jobs and shorter ones than theirs, so each cluster gets as many GPUs as make a load of nine tenths, or those of
   its largest job. Where the trace is not there, this part is left out.
"""

import math
import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from parallel_lab.systems.scheduling import (
    FIFO,
    SJF,
    SKIPPING,
    SRSF,
    SRTF,
    STRICT_SJF,
    Conservative,
    Easy,
    Elastic,
    Job,
    Levels,
    measures,
    queues,
    simulate,
    summary,
    trace,
)

DATA = Path(os.environ.get("PARALLEL_LAB_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
GAVEL, PHILLY = DATA / "gavel_msr_ee9e8c.csv", DATA / "philly_82247_jobs.csv.gz"
POLICIES = (FIFO, Easy(), Conservative(), SKIPPING, SJF, SRTF, SRSF, Levels(), Elastic())
GPUS, LIMIT_S, LIMIT_OFF, RUNS = 176, 1.0, 0.01, 3
SERVERS = ((1, 0.6), (4, 0.7), (16, 0.8))  # GPUs and utilization


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    """Processor seconds of the best of some runs, and what came of the last."""
    took_s, made = [], None
    for _ in range(RUNS):
        began_s = time.process_time()
        made = work()
        took_s.append(time.process_time() - began_s)
    return min(took_s), made


def policies() -> bool:
    """Prints the first table; whether every policy keeps the limit."""
    real = GAVEL.is_file()
    jobs = trace.gavel(GAVEL) if real else trace.drawn("gavel", 2000, seed=0, load_gpus=161.9)
    print(f"2,000 jobs {'of gavel' if real else 'drawn from the summary of gavel'}, {GPUS} GPUs; times in hours")
    print(
        f"{'':<22}{'mean':>7}{'median':>8}{'p99':>7}{'by work':>9}{'wait':>7}{'longest':>9}{'busy':>7}{'restarts':>10}"
        f"{'1 GPU':>7}{'above 8':>9}   processor"
    )
    good = True
    shrinking = [replace(job, least_gpus=1) for job in jobs]  # at linear speed
    for policy in POLICIES:
        given = shrinking if isinstance(policy, Elastic) else jobs
        took_s, schedule = seconds(lambda given=given, policy=policy: simulate(given, GPUS, policy))
        row, delays_s = summary(schedule), measures.delay_s(schedule)
        small, large = (
            fmean(delays_s[job.name] for job in jobs if least <= job.gpus <= most) / 3600
            for least, most in ((1, 1), (9, GPUS))
        )
        print(
            f"{row.policy:<22}{row.mean_jct_h:>7.1f}{row.median_jct_h:>8.1f}{row.p99_jct_h:>7.0f}"
            f"{row.weighted_jct_h:>9.1f}{row.mean_wait_h:>7.1f}{row.longest_wait_h:>9.0f}{row.busy:>7.2f}"
            f"{row.restarts:>10}{small:>7.1f}{large:>9.1f}   {took_s:.2f} s"
        )
        good &= took_s <= LIMIT_S
    return good


def closed_forms() -> bool:
    """Prints the second table; whether each mean is within the limit."""
    print("\nM/M/k, 8 runs of 60,000 jobs: mean completion time over the closed form")
    good = True
    for servers, rho in SERVERS:
        ratios = []
        for seed in range(8):
            jobs = queues.poisson_jobs(60_000, rate=rho * servers, mean_s=1.0, seed=seed)
            rate, mean_s = len(jobs) / jobs[-1].arrival_s, fmean(job.duration_s for job in jobs)
            jct_s = fmean(measures.jct_s(simulate(jobs, servers, FIFO)).values())
            ratios.append(jct_s / queues.mean_jct_s(servers, rate, mean_s))
        off = fmean(ratios) - 1
        print(f"{servers:>4} GPUs, rho {rho}: {off:+.2%} ± {stdev(ratios) / math.sqrt(len(ratios)):.2%}")
        good &= abs(off) <= LIMIT_OFF
    return good


def gpus_for(jobs: list[Job]) -> int:
    """A multiple of 8 that makes a load of nine tenths, and at least what the largest job asks for."""
    return max(math.ceil(trace.load(jobs) / 0.9 / 8) * 8, *(job.gpus for job in jobs))


def published_order() -> bool:
    """Prints the third table; whether every order is the published one."""
    print("\nMean completion time in hours: ours on this file's jobs, beside Helios' authors'")
    print(f"{'':<8}{'jobs':>7}{'GPUs':>6}{'FIFO':>9}{'SJF':>8}{'SRTF':>8}    {'FIFO':>9}{'SJF':>8}{'SRTF':>8}")
    good = True
    for row in trace.published():
        jobs = trace.philly(PHILLY, row.cluster, since="2017-10-01", until="2017-12-01")
        gpus = gpus_for(jobs)
        means_h = [
            fmean(measures.jct_s(simulate(jobs, gpus, policy)).values()) / 3600 for policy in (FIFO, STRICT_SJF, SRTF)
        ]
        theirs_h = [mean_s / 3600 for mean_s in (row.fifo, row.sjf, row.srtf)]
        ours, theirs = ("".join(f"{mean_h:>8.1f}" for mean_h in means) for means in (means_h, theirs_h))
        print(f"{row.cluster:<8}{len(jobs):>7}{gpus:>6} {ours}     {theirs}", flush=True)
        good &= means_h == sorted(means_h, reverse=True)
    return good


def main() -> int:
    """Prints the tables; 1 if a limit is missed."""
    good = [policies(), closed_forms()]
    if PHILLY.is_file():
        good.append(published_order())
    else:
        print(f"\n{PHILLY} is not there: the order on Philly's clusters is left out")
    return int(not all(good))


if __name__ == "__main__":
    sys.exit(main())
