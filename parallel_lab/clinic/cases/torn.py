"""Case 16: a resume from files of two different steps."""

# A gradient is there after a backward pass, which a type checker cannot know; a report takes tensors of one number.
# pyright: reportOperatorIssue=false, reportOptionalMemberAccess=false, reportArgumentType=false

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from parallel_lab.clinic.cases.dealt import Batch, batches_of, same_everywhere, together
from parallel_lab.clinic.cases.ground import LR, model_of
from parallel_lab.clinic.chart import Chart
from parallel_lab.clinic.instruments import Instrument, Report
from parallel_lab.clinic.job import Case, States, alike, one_process
from parallel_lab.model.reference import Reference, train

STEPS, SAVES, BATCH = 12, (4, 8), 6


class Folder(Instrument):
    """A folder of checkpoints, `(step, rank)` for each file; it notes which are read."""

    name = "folder"

    def __init__(self, files: dict[tuple[int, int], Tensor]) -> None:
        super().__init__()
        self.files = files

    def steps(self, rank: int) -> list[int]:
        """The steps of which there is a file of `rank`, oldest first."""
        return sorted(step for step, owner in self.files if owner == rank)

    def read(self, step: int, rank: int) -> Tensor:
        """The share of `rank` in the weights after `step` steps."""
        self.noted.append(step)
        return self.files[step, rank]


def job(model: nn.Module, folder: Folder, batches: list[Batch], report: Report) -> nn.Module:
    """Goes on where the checkpoints end; each rank saved its share of the weights."""
    rank, world = dist.get_rank(), dist.get_world_size()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    newest = folder.steps(rank)[-1]
    mine = folder.read(newest, rank)
    shares = [torch.empty_like(mine) for _ in range(world)]
    dist.all_gather(shares, mine)
    vector_to_parameters(torch.cat(shares), model.parameters())
    start = torch.tensor(newest)
    dist.broadcast(start, 0)
    for x, y in batches[start:]:
        loss = cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        dist.all_reduce(loss)
        for p in model.parameters():
            dist.all_reduce(p.grad)
            p.grad /= world
        optimizer.step()
        report(model, loss=loss.detach() / world, read=newest)
    return model


def mended(model: nn.Module, folder: Folder, batches: list[Batch], report: Report) -> nn.Module:
    """Goes on from the newest step of which every rank has its file."""
    rank, world = dist.get_rank(), dist.get_world_size()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    every: list[list[int]] = [[] for _ in range(world)]
    dist.all_gather_object(every, folder.steps(rank))
    start = max(set.intersection(*map(set, every)))
    mine = folder.read(start, rank)
    shares = [torch.empty_like(mine) for _ in range(world)]
    dist.all_gather(shares, mine)
    vector_to_parameters(torch.cat(shares), model.parameters())
    for x, y in batches[start:]:
        loss = cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        dist.all_reduce(loss)
        for p in model.parameters():
            dist.all_reduce(p.grad)
            p.grad /= world
        optimizer.step()
        report(model, loss=loss.detach() / world, read=start)
    return model


def given(rank: int, ranks: int, seed: int) -> tuple:
    """An untrained model, the folder as the crash left it, and the batches of this rank from the first step on."""
    files = {}
    for step in SAVES:
        model = model_of(seed)
        model.load_state_dict(_first(step, ranks, seed).weights)
        shares = parameters_to_vector(model.parameters()).detach().chunk(ranks)
        files |= {(step, owner): share for owner, share in enumerate(shares)}
    del files[SAVES[-1], lost(ranks, seed)]
    return model_of(seed + 50), Folder(files), batches_of(rank, seed, STEPS, BATCH)


def lost(ranks: int, seed: int) -> int:
    """The rank that died before its last file was written; never rank 0."""
    return 1 + (seed + 1) % (ranks - 1)


def _first(steps: int, ranks: int, seed: int) -> Reference:
    """One process that trains for `steps` steps on the batches of all ranks."""
    return train(model_of(seed), together(ranks, seed, STEPS, BATCH)[:steps], torch.optim.SGD, lr=LR)


def oracle(ranks: int, seed: int) -> States:
    """The run that nothing interrupted."""
    return same_everywhere(_first(STEPS, ranks, seed), ranks)


def notes(ranks: int, seed: int) -> str:
    """What the run said before it crashed."""
    losses = ", ".join(f"{loss:.4g}" for loss in _first(SAVES[-1], ranks, seed).losses)
    return f"Before the crash, which came while it saved after {SAVES[-1]} steps: loss {losses}"


def sign(chart: Chart) -> bool:
    """The ranks have read files of different steps."""
    return bool(chart.results) and len({tuple(chart.noted(rank, "folder")) for rank in range(chart.ranks)}) > 1


CASE = Case(
    number=16,
    title="After the restart the loss is back where it was hours ago",
    complaint=(
        "A node died at night, while the job saved. The restart found its checkpoints and no file is damaged: we "
        "compared all checksums. Still the loss lies above that of a twin that ran on, as if hours were lost. We "
        "suspect the data."
    ),
    cause="torn checkpoint",
    evidence="the ranks read files of two different steps: the newest that each of them has.",
    job=job,
    mended=mended,
    given=given,
    demands=(alike(), one_process("Look at the first loss after the restart, and at what each rank read.")),
    sign=sign,
    oracle=oracle,
    notes=notes,
    also=(2,),
)
