"""Case 14: ranks that read their next batch when they need it."""

# A gradient is there after a backward pass, which a type checker cannot know; a report takes tensors of one number.
# pyright: reportOperatorIssue=false, reportOptionalMemberAccess=false, reportArgumentType=false

import time
from concurrent.futures import ThreadPoolExecutor

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from parallel_lab.clinic.cases.dealt import Batch, alone, batches_of, same_everywhere
from parallel_lab.clinic.cases.ground import CLASSES, FEATURES, HIDDEN, model_of
from parallel_lab.clinic.chart import Chart, Unhealthy
from parallel_lab.clinic.instruments import Instrument, Report
from parallel_lab.clinic.job import Case, Demand, States, one_process
from parallel_lab.model import MLP
from parallel_lab.trace import Span, span

STEPS, BATCH = 10, 8
READ_S, FORWARD_S = 0.03, 0.03  # stand-ins: both sleep, so that two cores do for four ranks
MOST = 4  # batches that may lie in memory before they are used
SHARE = 1 / 3  # of the reads at least so many must begin while something computes; a busy machine wakes threads late


class Disk(Instrument):
    """Where the batches of this rank come from; a read takes 30 ms."""

    name = "disk"

    def __init__(self, batches: list[Batch]) -> None:
        super().__init__()
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def read(self, step: int) -> Batch:
        """The batch of a step. It may be called from any thread."""
        with span("read", part=step, lane="disk"):
            time.sleep(READ_S)
        self.noted.append(step)
        return self.batches[step]


class Large(MLP):
    """A model whose forward pass takes 30 ms."""

    def forward(self, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Logits."""
        with span("forward"):
            time.sleep(FORWARD_S)
        return super().forward(x)


def job(model: nn.Module, disk: Disk, report: Report) -> nn.Module:
    """Trains on what the disk holds for this rank."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for step in range(len(disk)):
        x, y = disk.read(step)
        loss = cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        for p in model.parameters():
            dist.all_reduce(p.grad)
            p.grad /= dist.get_world_size()
        optimizer.step()
        report(model, loss=loss.detach())
    return model


def mended(model: nn.Module, disk: Disk, report: Report) -> nn.Module:
    """A thread reads the next batch while this one is computed."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(disk.read, 0)
        for step in range(len(disk)):
            x, y = coming.result()
            if step + 1 < len(disk):
                coming = pool.submit(disk.read, step + 1)
            loss = cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            for p in model.parameters():
                dist.all_reduce(p.grad)
                p.grad /= dist.get_world_size()
            optimizer.step()
            report(model, loss=loss.detach())
    return model


def given(rank: int, ranks: int, seed: int) -> tuple:
    """The model, and the disk with the batches of this rank."""
    model = Large((FEATURES, HIDDEN, CLASSES)).double()
    model.load_state_dict(model_of(seed).state_dict())
    return model, Disk(batches_of(rank, seed, STEPS, BATCH))


def oracle(ranks: int, seed: int) -> States:
    """One process on the batches of all ranks."""
    return same_everywhere(alone(ranks, seed, STEPS, BATCH), ranks)


def hidden(chart: Chart, rank: int) -> tuple[int, int]:
    """How many reads of a rank, but for the first, began before the forward pass before them was over; of how many."""
    ends = [s.end_s for s in _of(chart, rank, "forward")]
    reads = [s for s in _of(chart, rank, "read") if s.part > 0]
    return sum(s.part <= len(ends) and s.start_s < ends[s.part - 1] for s in reads), len(reads)


def most_waiting(chart: Chart, rank: int) -> int:
    """The most batches of a rank that were read and not yet used."""
    begins = [s.start_s for s in _of(chart, rank, "forward")]
    reads = sorted(s.end_s for s in _of(chart, rank, "read"))
    return max((k + 1 - sum(begun < end for begun in begins) for k, end in enumerate(reads)), default=0)


def _of(chart: Chart, rank: int, kind: str) -> list[Span]:
    return sorted((s for s in chart.trace.of(rank) if s.name == kind), key=lambda s: s.start_s)


def reads_beside_computing() -> Demand:
    """The reads of each rank go on beside its forward passes, a few batches ahead and no more."""

    def look(case: Case, chart: Chart) -> None:
        for rank in range(chart.ranks):
            beside, reads = hidden(chart, rank)
            if (read := len(_of(chart, rank, "read"))) < STEPS:
                seen = f"rank {rank} read {read} of its {STEPS} batches from the disk"
                raise Unhealthy(seen, "Each batch is read by disk.read, in a thread of this process.")
            if beside < SHARE * reads:
                seen = f"rank {rank}: {beside} of {reads} reads began while something was computed"
                raise Unhealthy(seen, "What does a rank do between two forward passes?")
            if (most := most_waiting(chart, rank)) > MOST:
                seen = f"rank {rank}: {most} batches lay in memory before their turn; there is room for {MOST}"
                raise Unhealthy(seen, "The real data set does not fit.")

    return look


def sign(chart: Chart) -> bool:
    """On every rank no read begins before the forward pass before it is over."""
    return bool(chart.results) and all(hidden(chart, rank)[0] == 0 for rank in range(chart.ranks))


CASE = Case(
    number=14,
    title="The network is idle, the GPUs are at 50 per cent",
    complaint=(
        "Every GPU shows 50 % utilization, all the same, on a quiet network. A profile of the kernels finds nothing: "
        "each of them is as fast as it should be. Faster links made no difference. Nor did larger buckets."
    ),
    cause="loader bound",
    evidence="on all ranks alike a read fills the time from one step's exchange to the next forward pass.",
    job=job,
    mended=mended,
    given=given,
    demands=(one_process("The same batches, in the same order."), reads_beside_computing()),
    sign=sign,
    oracle=oracle,
)
