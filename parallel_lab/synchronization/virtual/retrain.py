"""Replay: trains with real gradients in exactly the order of a schedule, one process, deterministic.

Each gradient is computed at the weights of its `read_version`, with the next batch of its worker, and takes effect when
the schedule says so. The order may be one of virtual time, or the `updates` of a real run's server: the weights then
are those of the real run.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from itertools import groupby

import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from parallel_lab.agree.arguments import whole
from parallel_lab.model.data import Batch
from parallel_lab.model.gpt import loss as cross_entropy
from parallel_lab.model.weighted import Loss, mean_loss
from parallel_lab.parameter_server import Update
from parallel_lab.parameter_server.server import Make, mean_in_place
from parallel_lab.synchronization import LocalSteps, OuterSteps
from parallel_lab.synchronization.diloco import outer_step
from parallel_lab.synchronization.replicas import trained
from parallel_lab.synchronization.train import Source, own, weights
from parallel_lab.synchronization.virtual.clock import Schedule

Versions = Iterator[tuple[Update, Tensor]]  # of the shared weights: the last gradient in each, and the weights (N,)


@dataclass(frozen=True)
class Curve:
    """Quality over samples and over time."""

    samples: list[int]  # used so far at each point; those of dropped gradients taught nothing
    seconds: list[float]  # of virtual time at each point
    losses: list[float]  # on the held-out batch, or else the mean of the gradients' since the point before
    weights: Mapping[str, Tensor]  # at the end, by name as in `state_dict()`


class Gradients:
    """Computes gradients of one model at any weights, each worker on its own batches."""

    def __init__(self, model: nn.Module, batches: Source, workers: int, loss: Loss) -> None:
        self.model, self.loss = model, loss
        self.parameters = trained(model)
        self.start = parameters_to_vector(self.parameters).detach()
        self.streams = [iter(own(batches, worker, workers)) for worker in range(workers)]
        self.samples = 0  # used so far
        self.losses: list[float] = []  # since the last point of the curve

    def of(self, worker: int, at: Tensor, *, dropped: bool = False) -> tuple[Tensor, float]:
        """The gradient of the worker's next batch at the weights `at`, both (N,), and how much it counts in a mean."""
        batch = next(self.streams[worker], None)
        if batch is None:
            raise ValueError(f"worker {worker} has no batch left: give each worker as many as there are updates")
        vector_to_parameters(at, self.parameters)  # views of `at`, not copies
        self.model.zero_grad()
        value, weight = mean_loss(self.model, batch, self.loss)
        self.samples += 0 if dropped else len(batch[0])
        if weight:
            value.backward()
            self.losses.append(value.item())
        found = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.parameters]
        return parameters_to_vector(found), weight

    @torch.no_grad()
    def held_out(self, batch: Batch | None, at: Tensor) -> float:
        """The loss on `batch` at the weights `at`; without a batch, the mean of `losses`, which are then forgotten."""
        recent, self.losses = self.losses, []
        if batch is None:
            return sum(recent) / max(1, len(recent))
        vector_to_parameters(at, self.parameters)
        self.model.eval()
        value = mean_loss(self.model, batch, self.loss)[0].item()
        self.model.train()
        return value


def replay(
    schedule: Sequence[Update],
    model: nn.Module,
    batches: Source,
    optimizer_class: Callable[..., torch.optim.Optimizer],
    *,
    loss: Loss = cross_entropy,
    held_out: Batch | None = None,
    points: int = 20,
    **optimizer_kwargs,
) -> Curve:
    """Trains a copy of `model` in the order of `schedule` and returns its quality on the way, at up to `points` points.

    The schedule is a `Schedule`, or a real run's `Record.updates` (of one server), in which every worker occurs. The
    other arguments are those of `train`. The optimizer steps one flat vector, as on a server, so it has to treat each
    element alone; under `LocalSteps` each worker has one. Without `held_out`, quality is the training loss.
    """
    if not schedule:
        raise ValueError("an empty schedule: nothing to train")
    whole("points", points)
    workers = schedule.workers if isinstance(schedule, Schedule) else 1 + max(update.worker for update in schedule)
    gradients = Gradients(deepcopy(model), batches, workers, loss)
    make = partial(optimizer_class, **optimizer_kwargs)
    versions = _served(schedule, gradients, make)
    if isinstance(schedule, Schedule) and isinstance(schedule.strategy, LocalSteps):
        versions = _local(schedule, schedule.strategy, gradients, make)
    total = len({update.version for update in schedule if not update.dropped})
    samples, seconds, losses, at = [], [], [], gradients.start
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # models as small as these lose time when torch cuts their products up
    try:
        for index, (update, at) in enumerate(versions, start=1):
            # `points` of the versions, evenly spread, the last among them.
            if index * points // total > (index - 1) * points // total:
                samples.append(gradients.samples)
                seconds.append(update.finished_s)
                losses.append(gradients.held_out(held_out, at))
    finally:
        torch.set_num_threads(threads)
    vector_to_parameters(at, gradients.parameters)
    return Curve(samples, seconds, losses, weights(gradients.model))


def _served(schedule: Sequence[Update], gradients: Gradients, make: Make) -> Versions:
    """The versions of a server's weights."""
    parameter = nn.Parameter(gradients.start.clone())
    optimizer, kept = make([parameter]), {0: gradients.start}
    # What is dropped came after its `version`, which it found, and so is computed on the way to the next one.
    last_read = {update.read_version: update.version + update.dropped for update in schedule}
    for version, computed in groupby(schedule, key=lambda update: update.version + update.dropped):
        found = [(u, gradients.of(u.worker, kept[u.read_version], dropped=u.dropped)) for u in computed]
        used = {update.worker: gradient for update, gradient in found if not update.dropped}
        if used:
            parameter.grad = mean_in_place([used[worker] for worker in sorted(used)])
            optimizer.step()
            kept[version] = parameter.detach().clone()
            yield found[-1][0], kept[version]
        kept = {each: at for each, at in kept.items() if last_read.get(each, 0) > version}


def _local(schedule: Sequence[Update], strategy: LocalSteps, gradients: Gradients, make: Make) -> Versions:
    """The versions after each meeting; without an outer step of its own, the outer step is the mean of the weights."""
    lr, beta = (strategy.outer_lr, strategy.outer_momentum) if isinstance(strategy, OuterSteps) else (1.0, 0.0)
    shared, velocity = gradients.start.clone(), torch.zeros_like(gradients.start)
    copies = [nn.Parameter(shared.clone()) for _ in gradients.streams]
    optimizers = [make([copy]) for copy in copies]
    for _, round_ in groupby(schedule, key=lambda update: update.version):
        steps, seen = list(round_), [0.0 for _ in copies]
        for worker in (update.worker for update in steps):
            copies[worker].grad, weight = gradients.of(worker, copies[worker].detach())
            optimizers[worker].step()
            seen[worker] += weight
        with torch.no_grad():
            ways_back = [(shared - copy, count) for copy, count in zip(copies, seen, strict=True) if count]
            outer_step(shared, velocity, mean_in_place(ways_back), lr, beta)
            for copy in copies:
                copy.copy_(shared)
        yield steps[-1], shared.clone()
