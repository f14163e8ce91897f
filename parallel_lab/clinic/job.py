"""A case of the clinic: a broken job as data, what is asked of a mended one, and the words for asking it.

A case is a small file in `cases`: the complaint of a colleague, the program as readable source, the machine it runs on
(world, faults, link), one right mend, and the *demands* that a mended program stands up to. Demands look at the chart
of a run: weights, bytes, samples, the order of calls, what was held. None looks at a clock, so a busy machine changes
no verdict.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from parallel_lab.clinic.chart import Chart, Unhealthy
from parallel_lab.network import Link, Nodes
from parallel_lab.runtime import Fault
from parallel_lab.trace.units import format_bytes

Job = Callable[..., nn.Module]  # of what `given` gives, and a Report
States = Sequence[Mapping[str, Tensor]]  # by rank, parameters and buffers by name
CLOSE = 1e-9  # of float64 weights that sums in another order came to, relative to the largest one
CLIPPED = 1e-5  # the same, of clipped gradients: PyTorch divides by the norm plus 1e-6


@dataclass(frozen=True)
class Case:
    """One broken job with one hidden cause. Neither title nor complaint names it."""

    number: int
    title: str  # the complaint in a line
    complaint: str  # what a colleague writes
    cause: str  # its name in `causes.CAUSES`
    evidence: str  # where in the chart the cause shows; said after a right diagnosis
    job: Job  # the broken program
    mended: Job  # one right mend
    given: Callable[[int, int, int], tuple]  # of (rank, ranks, seed): what the job is called with, before the report
    demands: Sequence["Demand"]  # what a mended job stands up to, the most telling first
    sign: Callable[[Chart], bool]  # whether a chart shows the cause
    oracle: Callable[[int, int], States] | None = None  # of (ranks, seed): what each rank's model should come to
    notes: Callable[[int, int], str] = lambda ranks, seed: ""  # of (ranks, seed): what the colleague adds to the log
    ranks: int = 4
    also: Sequence[int] = ()  # other numbers of ranks at which a mend is judged, where there are no faults
    faults: Sequence[Fault] = ()
    link: Link | Nodes | None = None


Demand = Callable[[Case, Chart], None]  # raises Unhealthy


def one_process(advice: str = "", *, close: float = CLOSE) -> Demand:
    """The model of each rank is what the case's `oracle` computes in one process."""

    def look(case: Case, chart: Chart) -> None:
        assert case.oracle
        for rank, right in enumerate(case.oracle(chart.ranks, chart.seed)):
            same(chart.state(rank), right, f"rank {rank}", advice, close)

    return look


def same(got: Mapping[str, Tensor], right: Mapping[str, Tensor], who: str, advice: str, close: float = CLOSE) -> None:
    """Checks that `got` is `right`, up to `close` times the largest of its values.

    Raises:
        Unhealthy: it is not.
    """
    if missing := [name for name in right if name not in got or got[name].shape != right[name].shape]:
        raise Unhealthy(f"{who}: the model has no {missing[0]} of the shape that it began with", "Return the model.")
    for name, wanted in right.items():
        apart = (got[name].double() - wanted.double()).abs().max().item()
        if not apart <= close * max(1.0, wanted.double().abs().max().item()):
            raise Unhealthy(f"{who}: {name} is up to {apart:.2g} away from what one process comes to", advice)


def alike(advice: str = "") -> Demand:
    """After each step all ranks have reported the same weights."""

    def look(case: Case, chart: Chart) -> None:
        columns = [chart.column(rank, "weights") for rank in range(chart.ranks)]
        for rank, column in enumerate(columns):
            if len(column) != len(columns[0]):
                raise Unhealthy(f"rank {rank} reported {len(column)} steps, rank 0 {len(columns[0])}", advice)
        for step, each in enumerate(zip(*columns, strict=True)):
            if len(set(each)) > 1:
                raise Unhealthy(f"after step {step} not all ranks have the same weights", advice)

    return look


def reports(
    name: str, right: Callable[[int, int], Sequence[float]], advice: str = "", *, close: float = CLOSE
) -> Demand:
    """Every rank reports as `name`, step by step, what `right(ranks, seed)` says."""

    def look(case: Case, chart: Chart) -> None:
        wanted = right(chart.ranks, chart.seed)
        for rank in range(chart.ranks):
            got = chart.column(rank, name)
            if len(got) != len(wanted):
                raise Unhealthy(f"rank {rank} reported {len(got)} steps, expected {len(wanted)}", advice)
            for step, (one, other) in enumerate(zip(got, wanted, strict=True)):
                if not abs(one - other) <= close * (1 + abs(other)):
                    raise Unhealthy(f"step {step}: rank {rank} reports {name} {one:.6g}, expected {other:.6g}", advice)

    return look


def sends(most: Callable[[int], float], advice: str = "") -> Demand:
    """No rank sends more than `most(ranks)` bytes in the run."""

    def look(case: Case, chart: Chart) -> None:
        for rank in range(chart.ranks):
            if (sent := chart.trace.bytes_sent(rank)) > most(chart.ranks):
                seen = f"rank {rank} sent {format_bytes(sent)}; the job needs {format_bytes(most(chart.ranks))}"
                raise Unhealthy(seen, advice)

    return look


def reads(right: Callable[[int, int], Sequence[Any]], advice: str = "") -> Demand:
    """All ranks together read in the run the samples `right(ranks, seed)`, each as often, in whatever order."""

    def look(case: Case, chart: Chart) -> None:
        got = Counter(p for rank in range(chart.ranks) for each in chart.noted(rank, "samples") for p in each)
        wanted = Counter(right(chart.ranks, chart.seed))
        if got != wanted:
            more, less = (got - wanted).total(), (wanted - got).total()
            seen = f"of {wanted.total()} reads {less} are missing, and {more} are of samples not due, or not due again"
            raise Unhealthy(seen, advice)

    return look
