"""The one executor: carries out any pipeline plan with the stages of this rank.

A rank walks its row. Before a pass it waits for what the pass needs, activations or gradients; after it, it hands on
what the pass made. That is the whole control flow: GPipe, 1F1B, interleaved, zero-bubble and V-shaped schedules differ
in their rows alone. What a pass does stands in `stage.py`, how tensors cross from rank to rank in `transport.py`.

    sharded                the layers: each rank has its stages, their gradients and their optimizer's state
    replicated             the loss
    sent per microbatch    what the plan says: one activation forward and one gradient back over each cut between ranks
    beside that            in each step a byte over p - 1 cuts, which says whether shapes are new, and 8 bytes of loss

The loss is a sum over all microbatches, divided once by the number of its terms, however many each has.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.distributed as dist
from torch import Tensor, nn

from parallel_lab.agree.arguments import keyword_only
from parallel_lab.pipeline.program import program
from parallel_lab.pipeline.stage import Stage, as_tuple
from parallel_lab.pipeline.step_arguments import loss_of, number_of_terms, of_this_rank, per_microbatch
from parallel_lab.pipeline.transport import BACKWARD, FORWARD, Cut, Forms, Transport
from parallel_lab.plan import NAMES, Op, Plan
from parallel_lab.runtime.group import member
from parallel_lab.trace import span, tag


@keyword_only()
def step(
    plan: Plan,
    stages: Mapping[int, nn.Module | Stage] | nn.Module | Stage,
    microbatches: Sequence[Any] | None,
    targets: Sequence[Any] | None,
    loss_fn: Callable[[Any, Any], Tensor],
    *,
    count: float | None = None,
    group: dist.ProcessGroup | None = None,
) -> Tensor:
    """Runs all microbatches through the pipeline, forward and backward; the same loss on all ranks (a float64 scalar).

    Gradients are added to `.grad`, as `backward()` does; steps add up until `zero_grad()`. `loss_fn(output, target)`
    returns the *sum* of the losses of a microbatch, and the loss of the step is the sum of these, divided by `count`.
    So it is the mean over all tokens, though microbatches differ in size and in ignored targets.

    A stage may be wrapped by DDP, Zero2 or Zero3 over ranks that hold the same stage: gradients are averaged in the
    last backward pass of the step. With n such ranks, pass as `count` the terms of all of them divided by n.

    Args:
        plan: one row a rank of `group`.
        stages: this rank's modules by the number of their stage; or its only one.
        microbatches: the inputs of stage 0, each a tensor or a tuple of tensors; looked at on its rank alone.
        targets: those of the last stage; looked at on its rank alone. None for a microbatch without a target.
        loss_fn: called on the rank of the last stage.
        count: how many terms the sum has; by default the elements of `targets`, without those that are -100. Pass the
            number of microbatches if `loss_fn` returns the mean of each.
        group: the ranks of the pipeline; by default all.

    Raises:
        PlanError: the plan cannot be carried out.
        ValueError: the plan leaves out a pass, or is for other ranks or stages than there are; microbatches or targets
            are not as many as the plan has; no target counts; or a stage returns something of another form than before.
        TypeError: microbatches, targets or what a stage returns are of the wrong type.
    """
    group = member(group)
    mine = of_this_rank(plan, stages, group)
    return _Step(plan, mine, loss_fn, group).run(microbatches, targets, count)


@dataclass
class Known:
    """What a rank remembers from one step to the next, by the module of its first stage.

    Attributes:
        key: The plan and, on the rank of stage 0, the forms of the microbatches.
        forms: What crosses the cuts.
        microbatches: How many there have been, for the trace.
    """

    key: Any = None
    forms: Forms = field(default_factory=dict)
    microbatches: int = 0


_known: WeakKeyDictionary[nn.Module, Known] = WeakKeyDictionary()


def forget(module: nn.Module) -> None:
    """Forgets what is known of the tensors between stages; called with that of stage 0, the next step tells it anew."""
    _known.pop(module, None)


class _Step:
    """One step on one rank."""

    def __init__(self, plan: Plan, stages: dict[int, Stage], loss_fn: Callable, group: dist.ProcessGroup) -> None:
        self.stages, self.loss_fn, self.group = stages, loss_fn, group
        self.program = program(plan.rows, group.rank())
        self.last, self.m = len(self.program.ranks) - 1, self.program.microbatches
        self.known = _known.setdefault(stages[min(stages)].module, Known())
        self.seeds: dict[int, list[Tensor]] = {}  # the gradients of the losses, by microbatch
        self.loss = torch.zeros((), dtype=torch.float64, device=stages[min(stages)].device)
        self.sharing: dist.Work | None = None

    def run(self, microbatches: Sequence[Any] | None, targets: Sequence[Any] | None, count: float | None) -> Tensor:
        """The whole step."""
        self.inputs = per_microbatch("microbatches", microbatches, self.m) if 0 in self.stages else []
        self.targets = per_microbatch("targets", targets, self.m) if self.last in self.stages else []
        self.count = number_of_terms(self.targets, count) if self.last in self.stages else 1.0
        self._open()
        row = self.program.row
        for op, following in zip(row, (*row[1:], None), strict=True):
            self._post(op)
            if not self.transport.new:
                self._post(following)  # so that its message travels while this pass computes
            with _said(op, self.group.rank()):
                self._pass(op)
        self.transport.close()
        self.known.microbatches += self.m
        return self._shared_loss()

    def _open(self) -> None:
        """Looks whether the shapes of the microbatches are new, and lets all ranks know."""
        forms = [[(tuple(x.shape), x.dtype) for x in as_tuple(inputs)] for inputs in self.inputs]
        key = (self.program.rows, forms)
        where = self.program.ranks, self.program.over, self.group
        self.transport = Transport(*where, forms=self.known.forms, first=self.known.microbatches)
        self.transport.announce(key != self.known.key)
        self.known.key = key
        for stage in self.stages.values():
            stage.begin()

    def _post(self, op: Op | None) -> None:
        if op and (cut := self._incoming(op)):
            self.transport.post(cut, self.stages[op.part].device)

    def _incoming(self, op: Op) -> Cut | None:
        """What a pass waits for: the activations of the stage before, or the gradients of the stage after."""
        if op.kind == "F":
            return Cut(FORWARD, op.part - 1, op.mb) if op.part else None
        return Cut(BACKWARD, op.part, op.mb) if op.kind != "W" and op.part < self.last else None

    def _pass(self, op: Op) -> None:
        """Waits for what the pass needs, carries it out, and hands on what it made."""
        stage, cut = self.stages[op.part], self._incoming(op)
        arrived = self.transport.take(cut, stage.device) if cut else []
        stage.averages(op in self.program.ends)
        with span(NAMES[op.kind], part=op.part, mb=self.known.microbatches + op.mb):
            made = self._carry_out(stage, op, arrived)
        if op.kind == "F" and op.part < self.last:
            self.transport.put(Cut(FORWARD, op.part, op.mb), made)
        elif op.kind in "BI" and op.part:
            self.transport.put(Cut(BACKWARD, op.part - 1, op.mb), made)

    def _carry_out(self, stage: Stage, op: Op, arrived: Sequence[Tensor]) -> Sequence[Tensor]:
        if op.kind == "F":
            return self._forward(stage, op, arrived if op.part else as_tuple(self.inputs[op.mb]))
        if op.kind == "W":
            return stage.backward_weight(op.mb)
        backward = stage.backward if op.kind == "B" else stage.backward_input
        return backward(op.mb, arrived if op.part < self.last else self.seeds.pop(op.mb))

    def _forward(self, stage: Stage, op: Op, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        split = (op.part, op.mb) in self.program.split
        if op.part < self.last:
            return stage.forward(op.mb, inputs, split=split)
        target = self.targets[op.mb]
        (loss,) = stage.forward(op.mb, inputs, split=split, then=lambda output: loss_of(self.loss_fn, output, target))
        self.loss += loss.detach()
        self.seeds[op.mb] = [torch.full_like(loss, 1 / self.count)] if loss.requires_grad else []
        if op == self.program.last_forward:
            self.loss /= self.count
            self.sharing = self._share()  # while the backward passes are still to come
        return [loss]

    def _share(self) -> dist.Work | None:
        """The rank of the last stage tells the others the loss."""
        if self.group.size() > 1:
            with tag(part=self.last, mb=self.known.microbatches, phase="loss"):
                return dist.broadcast(self.loss, group=self.group, group_src=self.program.ranks[-1], async_op=True)

    def _shared_loss(self) -> Tensor:
        sharing = self.sharing or self._share()
        if sharing:
            sharing.wait()
        return self.loss


@contextmanager
def _said(op: Op, rank: int) -> Iterator[None]:
    """An error inside says in which pass it happened."""
    try:
        yield
    except Exception as error:
        where = f"in the {NAMES[op.kind].replace('_', ' of ')} pass of stage {op.part}, microbatch {op.mb}"
        error.add_note(f"Rank {rank} of the pipeline was {where}.")
        raise
