"""Replay: trains with real gradients in exactly the order of a schedule, one process, deterministic.

Each gradient is computed at the weights of its `read_version`, with the next batch of its worker, and takes effect when
the schedule says so. The order may be one of virtual time, or the `updates` of a real run's server: the weights then
are those of the real run.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
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
from parallel_lab.parameter_server.server import mean_in_place
from parallel_lab.synchronization.batches import Source, own
from parallel_lab.synchronization.diloco import OuterSteps, outer_step
from parallel_lab.synchronization.local_sgd import LocalSteps
from parallel_lab.synchronization.replicas import trained
from parallel_lab.synchronization.train import weights
from parallel_lab.synchronization.virtual.clock import Schedule

Make = Callable[[list[nn.Parameter]], torch.optim.Optimizer]
Versions = Iterator[tuple[Update, Tensor]]  # of the shared weights: the last gradient in each, and the weights (P,)


@dataclass(frozen=True)
class Curve:
    """Quality over samples and over time."""

    samples: list[int]  # computed so far at each point, dropped ones included: they cost as much
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
        self.losses: list[float] = []  # of the gradients since the list was last emptied

    def of(self, worker: int, at: Tensor) -> tuple[Tensor, float]:
        """The gradient of the worker's next batch at the weights `at`, both (P,), and how much it counts in a mean."""
        batch = next(self.streams[worker], None)
        if batch is None:
            raise ValueError(f"worker {worker} has no batch left: give each worker as many as there are updates")
        vector_to_parameters(at, self.parameters)  # views of `at`, not copies
        self.model.zero_grad()
        value, weight = mean_loss(self.model, batch, self.loss)
        self.samples += len(batch[0])
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
    """Trains a copy of `model` in the order of `schedule` and returns its quality on the way.

    Args:
        schedule: a `Schedule`, or a real run's `Record.updates` (of one server), in which every worker occurs.
        model: the start.
        batches: as the real strategies take them; each worker draws from its own as often as it computes.
        optimizer_class: `optimizer_class([weights], **optimizer_kwargs)`, as a server makes it: over one flat vector,
            so it has to treat each element alone. Under `LocalSteps` each worker has one.
        loss: of (outputs, targets), as `train` takes it.
        held_out: the batch on which quality is measured; without it, the training loss.
        points: how many points the curve has, or fewer where there are fewer updates of the shared weights.
        optimizer_kwargs: for `optimizer_class`, as in `lr=0.1`.

    Raises:
        ValueError: there are no updates, or a worker has too few batches.
    """
    if not schedule:
        raise ValueError("an empty schedule: nothing to train")
    whole("points", points)
    workers = schedule.workers if isinstance(schedule, Schedule) else 1 + max(update.worker for update in schedule)
    gradients = Gradients(deepcopy(model), batches, workers, loss)
    make = partial(optimizer_class, **optimizer_kwargs)
    if isinstance(schedule, Schedule) and isinstance(schedule.strategy, LocalSteps):
        versions = _local(schedule, schedule.strategy, gradients, make)
    else:
        versions = _served(schedule, gradients, make)
    total = len({update.version for update in schedule if not update.dropped})
    samples, seconds, losses, at = [], [], [], torch.empty(0)
    with _one_thread():
        for index, (update, at) in enumerate(versions, start=1):
            # `points` of the versions, evenly spread, the last among them.
            if index * points // total > (index - 1) * points // total:
                samples.append(gradients.samples)
                seconds.append(update.finished_s)
                losses.append(gradients.held_out(held_out, at))
    vector_to_parameters(at, gradients.parameters)
    return Curve(samples, seconds, losses, weights(gradients.model))


@contextmanager
def _one_thread() -> Iterator[None]:
    """Models as small as these lose time when torch cuts their products up, most of all on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _served(schedule: Sequence[Update], gradients: Gradients, make: Make) -> Versions:
    """The versions of a server's weights."""
    parameter = nn.Parameter(gradients.start.clone())
    optimizer = make([parameter])
    needed = {update.read_version: index for index, update in enumerate(schedule)}  # the last to read each version
    closing = {update.version: index for index, update in enumerate(schedule) if not update.dropped}
    kept = {0: gradients.start}
    held: dict[int, tuple[Tensor, float]] = {}
    for index, update in enumerate(schedule):
        gradient = gradients.of(update.worker, kept[update.read_version])
        if not update.dropped:
            held[update.worker] = gradient
            if closing[update.version] == index:
                parameter.grad = mean_in_place([held[worker] for worker in sorted(held)])
                optimizer.step()
                held.clear()
                kept[update.version] = parameter.detach().clone()
                yield update, kept[update.version]
        kept = {version: at for version, at in kept.items() if needed.get(version, -1) > index}


def _local(schedule: Schedule, strategy: LocalSteps, gradients: Gradients, make: Make) -> Versions:
    """The versions after each meeting; without an outer step of its own, the outer step is the mean of the weights."""
    lr, mu = (strategy.outer_lr, strategy.outer_momentum) if isinstance(strategy, OuterSteps) else (1.0, 0.0)
    shared, momentum = gradients.start.clone(), torch.zeros_like(gradients.start)
    own_weights = [nn.Parameter(shared.clone()) for _ in range(schedule.workers)]
    optimizers = [make([parameter]) for parameter in own_weights]
    for _, round_ in groupby(schedule, key=lambda update: update.version):
        steps, seen = list(round_), [0.0] * schedule.workers
        for update in steps:
            worker = update.worker
            own_weights[worker].grad, weight = gradients.of(worker, own_weights[worker].detach())
            optimizers[worker].step()
            seen[worker] += weight
        with torch.no_grad():
            outer = [(shared - own, count) for own, count in zip(own_weights, seen, strict=True) if count]
            outer_step(shared, momentum, mean_in_place(outer), lr, mu)
            for parameter in own_weights:
                parameter.copy_(shared)
        yield steps[-1], shared.clone()
