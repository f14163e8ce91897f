"""Case 19: a save for which rank 0 gathers what all ranks hold."""

# A gradient is there after a backward pass, which a type checker cannot know; a report takes tensors of one number.
# pyright: reportOperatorIssue=false, reportOptionalMemberAccess=false, reportArgumentType=false

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from parallel_lab.clinic.cases.dealt import Batch, alone, batches_of, same_everywhere
from parallel_lab.clinic.cases.ground import model_of
from parallel_lab.clinic.chart import Chart, Unhealthy
from parallel_lab.clinic.instruments import Instrument, Report
from parallel_lab.clinic.job import Case, Demand, States, alike, one_process
from parallel_lab.trace import recorder
from parallel_lab.trace.memory import live_bytes
from parallel_lab.trace.units import format_bytes

STEPS, BATCH = 4, 6
SHARE = 250_000  # numbers of the optimizer's state on each rank, float64: 2 MB
ROOM = 1.5  # times its share that a rank may hold beside model and data


class Folder(Instrument):
    """Where a job saves; it notes what is written, and how many bytes of tensors the rank holds at that moment."""

    name = "folder"

    def write(self, name: str, content: Tensor) -> None:
        """Saves a tensor as `name`."""
        recorder().sample(live_bytes())
        self.noted.append((name, [len(content), float(content.sum())]))


def job(model: nn.Module, state: Tensor, batches: list[Batch], folder: Folder, report: Report) -> nn.Module:
    """Trains, and saves the optimizer's state, of which each rank holds its share, at the end."""
    rank, world = dist.get_rank(), dist.get_world_size()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for x, y in batches:
        loss = cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        for p in model.parameters():
            dist.all_reduce(p.grad)
            p.grad /= world
        optimizer.step()
        report(model, loss=loss.detach())
    shares = [torch.empty_like(state) for _ in range(world)] if rank == 0 else None
    dist.gather(state, shares)
    if shares:
        folder.write("state", torch.cat(shares))
    return model


def mended(model: nn.Module, state: Tensor, batches: list[Batch], folder: Folder, report: Report) -> nn.Module:
    """Each rank writes its own share."""
    rank, world = dist.get_rank(), dist.get_world_size()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for x, y in batches:
        loss = cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        for p in model.parameters():
            dist.all_reduce(p.grad)
            p.grad /= world
        optimizer.step()
        report(model, loss=loss.detach())
    folder.write(f"state-{rank}", state)
    return model


def given(rank: int, ranks: int, seed: int) -> tuple:
    """The model, this rank's share of the state, its batches, and the folder."""
    state = torch.full((SHARE,), float(rank + 1 + seed % 7), dtype=torch.float64)
    return model_of(seed), state, batches_of(rank, seed, STEPS, BATCH), Folder()


def oracle(ranks: int, seed: int) -> States:
    """One process on the batches of all ranks."""
    return same_everywhere(alone(ranks, seed, STEPS, BATCH), ranks)


def saves_all() -> Demand:
    """What is in the folder is the state of all ranks, each share once."""

    def look(case: Case, chart: Chart) -> None:
        written = [what for rank in range(chart.ranks) for _, what in chart.noted(rank, "folder")]
        names = [name for rank in range(chart.ranks) for name, _ in chart.noted(rank, "folder")]
        if len(set(names)) < len(names):
            raise Unhealthy(f"{len(names)} files were written, and some over others", "Each file needs its own name.")
        right = [SHARE * chart.ranks, SHARE * sum(rank + 1 + chart.seed % 7 for rank in range(chart.ranks))]
        got = [sum(numbers) for numbers in zip(*written, strict=True)] or [0, 0]
        if got[0] != right[0] or abs(got[1] - right[1]) > 1e-6 * right[1]:
            raise Unhealthy(f"{got[0]:,.0f} numbers were saved, expected {right[0]:,}", "Each share, and once.")

    return look


def holds_its_own() -> Demand:
    """No rank holds much more than its own share, at any of its writes."""

    def look(case: Case, chart: Chart) -> None:
        for rank in range(chart.ranks):
            if (most := chart.trace.peak_bytes(rank)) > ROOM * 8 * SHARE:
                seen = f"rank {rank} held {format_bytes(most)} while it saved; its share is {format_bytes(8 * SHARE)}"
                raise Unhealthy(seen, "There is room for half a share more.")

    return look


def sends_no_state() -> Demand:
    """No share travels: what is sent are the gradients."""

    def look(case: Case, chart: Chart) -> None:
        for s in chart.trace.spans:
            if s.bytes >= 8 * SHARE / 16:
                seen = f"rank {s.rank} takes part in a {s.kind} of {format_bytes(s.bytes)}"
                raise Unhealthy(seen, "Where must the state go, and who has it already?")

    return look


def sign(chart: Chart) -> bool:
    """One rank holds more than half of what all hold together at the save."""
    if not chart.results:
        return False
    held = [chart.trace.peak_bytes(rank) for rank in range(chart.ranks)]
    return max(held) > SHARE * 8 * chart.ranks


CASE = Case(
    number=19,
    title="Rank 0 runs out of memory, once an hour",
    complaint=(
        "With sharded optimizer state each GPU is at 20 % of its memory, the same all day. About once an hour rank 0 "
        "dies: out of memory. We halved the batch, twice. We exchanged the card. It is always rank 0."
    ),
    cause="gathered on rank 0",
    evidence="at the save rank 0 holds every share, twice; the others send theirs, in one gather.",
    job=job,
    mended=mended,
    given=given,
    demands=(alike(), one_process(), saves_all(), holds_its_own(), sends_no_state()),
    sign=sign,
    oracle=oracle,
    ranks=4,
    also=(2,),
)
