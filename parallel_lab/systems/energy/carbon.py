"""From GPU hours to kilowatt-hours and carbon: what is multiplied, and when the work is done.

    energy in kWh = GPU hours · watts of a GPU / 1000 · PUE        CO2 in kg = kWh · kg per kWh

PUE (power usage effectiveness) is the power of the whole building over that of its computers, so it is applied once,
and to the power of *servers*: with the GPU's watts alone the host, the network and the storage are left out, which is
no business of the PUE. Of an intensity one says whether it is the average of a grid or the marginal one (the plant
that starts because of this job), and whether it is by location or by contract ("market-based").
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

J_PER_KWH = 3.6e6
HOURS = 24


def kwh(gpu_hours: float, watts: float, pue: float = 1.0) -> float:
    """Energy in kWh; watts are those of one GPU, with its share of the host if one knows it.

    Raises:
        ValueError: the PUE is below 1: a building cannot draw less than the computers in it.
    """
    if pue < 1:
        raise ValueError(f"pue={pue}: expected 1 or more")
    return gpu_hours * watts / 1e3 * pue


def tonnes(energy_kwh: float, kg_per_kwh: float) -> float:
    """Tonnes of CO2 equivalent."""
    return energy_kwh * kg_per_kwh / 1e3


@dataclass(frozen=True)
class PublishedRun:
    """A training run with what its authors, or others, wrote of it.

    Attributes:
        name: of the model.
        gpu_hours: as published, or made of what is published.
        watts: of one GPU that the published figure is made with.
        pue: that it is made with; 1 where none is applied on top.
        mwh: the published energy; None where there is none.
        kg_per_kwh: the published intensity; None where only tonnes are.
        tco2: the published tonnes; None where there are none.
        watts_from: where the watts come from.
        circular: whether the published energy *is* this product with watts that were not measured at the run, so that
            recomputing it confirms nothing.
        source: of the figures.
    """

    name: str
    gpu_hours: float
    watts: float
    pue: float
    mwh: float | None
    kg_per_kwh: float | None
    tco2: float | None
    watts_from: str
    circular: bool
    source: str

    @property
    def recomputed_mwh(self) -> float:
        """Hours times watts times PUE."""
        return kwh(self.gpu_hours, self.watts, self.pue) / 1e3

    @property
    def recomputed_tco2(self) -> float | None:
        """The same times the published intensity."""
        return None if self.kg_per_kwh is None else tonnes(self.recomputed_mwh * 1e3, self.kg_per_kwh)

    @property
    def implied_kg_per_kwh(self) -> float | None:
        """The intensity that published tonnes and recomputed energy imply."""
        return None if self.tco2 is None else self.tco2 / self.recomputed_mwh


PUBLISHED = (
    PublishedRun("LLaMA-65B", 1_022_362, 400, 1.1, 449, 0.385, 173, "TDP", True, "Touvron et al. 2023, table 15"),
    PublishedRun("BLOOM-176B", 1_082_990, 400, 1.0, 433.196, 0.057, 24.69, "TDP", True, "Luccioni et al. 2022"),
    PublishedRun(
        "GPT-3",
        14.8 * 24 * 10_000,
        330,
        1.1,
        1287,
        None,
        552,
        "of V100 servers",
        True,
        "Patterson et al. 2021, table 4",
    ),
    PublishedRun("Llama-3.1-405B", 30.84e6, 700, 1.0, None, None, 8930, "TDP", True, "model card, Meta 2024"),
    PublishedRun(
        "T5-11B", 512 * 20 * 24, 310, 1.12, 85.7, None, None, "measured", False, "Patterson et al. 2021, table 4"
    ),
)


def daily(low: float = 0.15, high: float = 0.45, cleanest_h: float = 13.0) -> list[float]:
    """kg per kWh of each hour of a day: a cosine of the course's own, cleanest at 13 h, as with much solar power.

    No grid is meant. Real curves come from the grid's operator, and differ by day and season.
    """
    middle, reach = (low + high) / 2, (high - low) / 2
    return [middle - reach * math.cos(2 * math.pi * (hour - cleanest_h) / HOURS) for hour in range(HOURS)]


@dataclass(frozen=True)
class Work:
    """A job that can wait.

    Attributes:
        name: for people.
        arrives_h: the hour from which it may run.
        hours: how long it runs, in whole hours and without a break.
        gpus: how many it holds.
        slack_h: by how many hours it may begin later.
    """

    name: str
    arrives_h: int
    hours: int
    gpus: int
    slack_h: int


@dataclass(frozen=True)
class Shifted:
    """A schedule by the hour.

    Attributes:
        starts: the hour at which each job begins, by name.
        kg: CO2 of all jobs.
        used: GPUs in use, by hour.
    """

    starts: dict[str, int]
    kg: float
    used: tuple[int, ...]


def schedule(
    jobs: Sequence[Work], kg_per_kwh: Sequence[float], gpus: int, *, gpu_kw: float, shifted: bool = True
) -> Shifted:
    """Each job, in the order of arrival, at the hour of least carbon within its slack at which GPUs are free.

    It is greedy: an early job may take the clean hours of a later one. `shifted=False` starts each as soon as it fits.

    Args:
        jobs: what is to run.
        kg_per_kwh: the intensity of each hour; it repeats after its end.
        gpus: those of the cluster.
        gpu_kw: what a GPU draws at work, in kW, host and PUE included. Idle GPUs are counted as off.
        shifted: whether to wait for cleaner hours.

    Raises:
        ValueError: a job asks for more GPUs than there are.
    """
    used: dict[int, int] = {}
    starts: dict[str, int] = {}
    total_kg = 0.0

    def fits(job: Work, start: int) -> bool:
        return all(used.get(hour, 0) + job.gpus <= gpus for hour in range(start, start + job.hours))

    def kg(job: Work, start: int) -> float:
        hours = range(start, start + job.hours)
        return job.gpus * gpu_kw * sum(kg_per_kwh[hour % len(kg_per_kwh)] for hour in hours)

    for job in sorted(jobs, key=lambda each: each.arrives_h):
        if job.gpus > gpus:
            raise ValueError(f"job {job.name} asks for {job.gpus} GPUs of {gpus}")
        first = job.arrives_h
        free = [hour for hour in range(first, first + job.slack_h + 1) if fits(job, hour)]
        if not free or not shifted:
            start = next(hour for hour in range(first, 10**9) if fits(job, hour))
        else:
            start = min(free, key=lambda hour: (kg(job, hour), hour))
        starts[job.name] = start
        total_kg += kg(job, start)
        for hour in range(start, start + job.hours):
            used[hour] = used.get(hour, 0) + job.gpus
    return Shifted(starts, total_kg, tuple(used.get(hour, 0) for hour in range(max(used) + 1)))
