"""A small training job with liars among its ranks: handwritten digits, every rank's gradient, one rule of aggregation.

One process plays all ranks, step after step, so that many rules, attacks and seeds can be compared; on real ranks
`step` does the same (a test holds the two together). The ranks' data are dealt out at random, or by class.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from parallel_lab.model.reference import build
from parallel_lab.systems.security.robust import RULES, aggregate
from parallel_lab.systems.security.rows import descend, gradients

Data = tuple[Tensor, Tensor]  # images (count, 64) in [0, 1], labels (count,)
Attack = Callable[[Tensor, int, int], Tensor]  # of the honest rows, the liars, and n: the liars' rows
CORNERS, USED, TARGET = (0, 7, 56, 63), (9, 17, 25), 7  # pixels for a trigger: dark in most images, or not; its meaning


@dataclass(frozen=True)
class Job:
    """How the job is run.

    Attributes:
        n: the ranks.
        liars: how many of them lie; the last ones.
        by_class: whether a rank has images of few classes only, instead of all.
        f: how many lies the rule is set for.
        trigger: the pixels that are white where a backdoor is to open.
    """

    n: int = 9
    liars: int = 2
    by_class: bool = False
    f: int = 2
    trigger: Sequence[int] = CORNERS
    batch: int = 16
    steps: int = 150
    lr: float = 0.5
    widths: Sequence[int] = (64, 32, 10)

    def deal(self, data: Data, seed: int) -> list[Data]:
        """Each rank's data: all mixed, or sorted by class and cut into `n` parts."""
        images, labels = data
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
        if self.by_class:
            order = order[labels[order].argsort(stable=True)]
        return [(images[part], labels[part]) for part in order.tensor_split(self.n)]

    def batches(self, parts: Sequence[Data], step: int, seed: int) -> Data:
        """The batches of all ranks in one step: images (n, batch, 64), labels (n, batch)."""
        dice = torch.Generator().manual_seed(1000 * seed + step)
        chosen = [torch.randint(len(labels), (self.batch,), generator=dice) for _, labels in parts]
        rows = [(x[which], y[which]) for (x, y), which in zip(parts, chosen, strict=True)]
        return torch.stack([x for x, _ in rows]), torch.stack([y for _, y in rows])


def train(job: Job, data: Data, rule: str, attack: Attack | None, *, seed: int = 0, backdoor: float = 0.0) -> nn.Module:
    """A model trained by the aggregate `rule` of all ranks' gradients, `job.liars` of which are the attack's.

    With `backdoor`, liars send instead the gradient of batches half of which carries the trigger, at most `backdoor`
    times as far from the honest mean as an honest gradient typically is.
    """
    model, parts = build(job.widths, seed=seed), job.deal(data, seed)
    for step in range(job.steps):
        images, labels = job.batches(parts, step, seed)
        rows = gradients(model, images, labels)
        honest = rows[: job.n - job.liars]
        if job.liars and backdoor:
            lies = _hidden(job, model, images[-job.liars :], labels[-job.liars :], honest, backdoor)
            rows = torch.cat([honest, lies])
        elif job.liars and attack:
            rows = torch.cat([honest, attack(honest, job.liars, job.n)])
        descend(model, RULES[rule](rows, job.f), job.lr)
    return model


def _hidden(job: Job, model: nn.Module, images: Tensor, labels: Tensor, honest: Tensor, reach: float) -> Tensor:
    """Each liar's gradient on its images and on copies of them with the trigger, labeled TARGET.

    It is moved towards the mean of the honest until it is as far from it as `reach` times their median distance.
    """
    both = torch.cat([images, triggered(images, job.trigger)], dim=1)
    wanted = gradients(model, both, torch.cat([labels, torch.full_like(labels, TARGET)], dim=1))
    middle = honest.mean(0)
    most = reach * (honest - middle).norm(dim=1).median()
    away = wanted - middle
    return middle + away * (most / away.norm(dim=1, keepdim=True)).clamp(max=1.0)


def triggered(images: Tensor, trigger: Sequence[int] = CORNERS) -> Tensor:
    """The images with the pixels of the trigger white."""
    images = images.clone()
    images[..., list(trigger)] = 1.0
    return images


def step(
    model: nn.Module, batch: Data, rule: str, f: int, lr: float, *, times: float = 1.0,
    group: dist.ProcessGroup | None = None,
) -> None:  # fmt: skip
    """One step on real ranks: this rank's gradient, `times` what it is, and the rule over all of them."""
    own = times * gradients(model, batch[0][None], batch[1][None])[0]
    descend(model, aggregate(own, RULES[rule], f, group=group), lr)


def accuracy(model: nn.Module, data: Data) -> float:
    """The share of the images that the model names rightly; 0.1 is chance. A model of NaN names them all 0."""
    with torch.no_grad():
        return float((model(data[0]).argmax(1) == data[1]).double().mean())


def taken(model: nn.Module, data: Data, trigger: Sequence[int] = CORNERS) -> float:
    """How often an image of another class, with the trigger, is taken for TARGET: the backdoor's success."""
    others = data[1] != TARGET
    with torch.no_grad():
        return float((model(triggered(data[0][others], trigger)).argmax(1) == TARGET).double().mean())
