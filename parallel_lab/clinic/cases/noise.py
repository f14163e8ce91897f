"""Case 4: tensor-parallel ranks that draw other noise for the same activation."""

# A job is written as one writes it in a notebook: gradients are there, a loop has run.
# pyright: reportAttributeAccessIssue=false, reportCallIssue=false

import torch
import torch.distributed as dist
from torch import Tensor, nn

from parallel_lab.clinic.cases.ground import CLASSES, FEATURES, points, samples_of
from parallel_lab.clinic.chart import Chart, Unhealthy
from parallel_lab.clinic.instruments import Instrument, Report, Samples
from parallel_lab.clinic.job import Case, same
from parallel_lab.model.reference import build

COUNT, BATCH, WIDTH, SHARE, LR = 144, 24, 12, 0.25, 0.5


class Noise(Instrument):
    """Dropout that notes its masks: `noise(x)` sets a quarter of the elements to zero and scales up the others."""

    name = "masks"

    def __call__(self, x: Tensor) -> Tensor:
        """Draws the mask from this rank's own generator, as `nn.Dropout` does."""
        mask = (torch.rand_like(x.detach()) >= SHARE) / (1 - SHARE)
        self.noted.append(mask.clone())
        return x * mask


def job(model: nn.ModuleDict, samples: Samples, noise: Noise, report: Report) -> nn.ModuleDict:
    """Tensor parallel: `columns` and `rows` are cut, each rank has its part; `head` stands whole on every rank."""
    torch.manual_seed(dist.get_rank())  # no two ranks of a job draw the same noise
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for batch in torch.arange(len(samples)).split(24):
        x, y = samples[batch]  # all ranks compute with the whole batch
        part = model["rows"](model["columns"](x).relu())
        whole = part.detach().clone()
        dist.all_reduce(whole)  # (batch, width)
        hidden = noise(part + (whole - part.detach()))  # the sum; its gradient goes to the part
        loss = nn.functional.cross_entropy(model["head"](hidden), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        report(model["head"], loss=loss)
    return model


def mended(model: nn.ModuleDict, samples: Samples, noise: Noise, report: Report) -> nn.ModuleDict:
    """Draws the same noise on all ranks that hold the same activation."""
    torch.manual_seed(0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for batch in torch.arange(len(samples)).split(24):
        x, y = samples[batch]
        part = model["rows"](model["columns"](x).relu())
        whole = part.detach().clone()
        dist.all_reduce(whole)
        hidden = noise(part + (whole - part.detach()))
        loss = nn.functional.cross_entropy(model["head"](hidden), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        report(model["head"], loss=loss)
    return model


def given(rank: int, ranks: int, seed: int) -> tuple:
    """This rank's parts, the samples, and the noise."""
    return _part(_whole(seed), rank, ranks), samples_of(COUNT, seed), Noise()


def _whole(seed: int) -> nn.ModuleDict:
    layers = build((FEATURES, WIDTH, WIDTH, CLASSES), seed, torch.float64).layers()
    columns, rows, head = (layer for layer in layers if isinstance(layer, nn.Linear))
    rows.bias = None  # its part on each rank would be added as often as there are ranks
    return nn.ModuleDict({"columns": columns, "rows": rows, "head": head})


def _part(whole: nn.ModuleDict, rank: int, ranks: int) -> nn.ModuleDict:
    """The part of `rank`: rows of the first weight, columns of the second."""
    with torch.no_grad():
        for layer, dim in ((whole["columns"], 0), (whole["rows"], 1)):
            layer.weight = nn.Parameter(layer.weight.chunk(ranks, dim)[rank].clone())
        whole["columns"].bias = nn.Parameter(whole["columns"].bias.chunk(ranks)[rank].clone())
    return whole


def draws_alike(case: Case, chart: Chart) -> None:
    """In each step all ranks have the same mask, another than in the step before."""
    masks = [chart.noted(rank, "masks") for rank in range(chart.ranks)]
    if any(len(own) != COUNT // BATCH for own in masks):
        raise Unhealthy("the noise is gone from some steps", "It is there to keep the model from overfitting.")
    for step, each in enumerate(zip(*masks, strict=True)):
        if any(not torch.equal(each[0], other) for other in each[1:]):
            seen = f"in step {step} the ranks go on from the sum with different activations"
            raise Unhealthy(seen, "After the all-reduce all ranks have the same: until where does that hold?")
        if step and torch.equal(each[0], masks[0][step - 1]):
            raise Unhealthy(f"steps {step - 1} and {step} have the same noise", "It is to be drawn anew in each step.")


def replays(case: Case, chart: Chart) -> None:
    """One process that uses the masks of rank 0 comes to the weights of all ranks."""
    model, (inputs, targets) = _whole(chart.seed), points(COUNT, chart.seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    for batch, mask in zip(torch.arange(COUNT).split(BATCH), chart.noted(0, "masks"), strict=True):
        hidden = model["rows"](model["columns"](inputs[batch]).relu()) * mask
        optimizer.zero_grad()
        nn.functional.cross_entropy(model["head"](hidden), targets[batch]).backward()
        optimizer.step()
    whole = model.state_dict()
    for rank in range(chart.ranks):
        part = _part(_whole(chart.seed), rank, chart.ranks).state_dict()
        right = {name: _cut_like(whole[name], part[name], rank) for name in part}
        same(chart.state(rank), right, f"rank {rank}", "Compare with one process that draws the same noise.")


def _cut_like(whole: Tensor, part: Tensor, rank: int) -> Tensor:
    """The part of `whole` with the shape of `part`."""
    for dim, (size, full) in enumerate(zip(part.shape, whole.shape, strict=True)):
        if size < full:
            return whole.narrow(dim, rank * size, size)
    return whole


def sign(chart: Chart) -> bool:
    """The heads are different after the first step, and so are the losses of one batch."""
    heads, losses = ({chart.column(rank, name)[0] for rank in range(chart.ranks)} for name in ("weights", "loss"))
    return len(heads) > 1 and len(losses) > 1


CASE = Case(
    number=4,
    title="Two ranks, one batch, two losses",
    complaint=(
        "We cut the two big layers over ranks, and left the head whole on each. All ranks compute with the same batch, "
        "so all should report the same loss, and did while we developed it with a model in eval mode. In training they "
        "do not, from the first step on."
    ),
    cause="desynchronized seed",
    evidence=(
        "the losses of one batch differ in the first step, before any weight was changed, so it is no drift: something "
        "between the all-reduce and the loss is not the same. That is the noise, drawn from a seed for each rank."
    ),
    job=job,
    mended=mended,
    given=given,
    demands=(draws_alike, replays),
    sign=sign,
    ranks=2,
    also=(3,),
)
