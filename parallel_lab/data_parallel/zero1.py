"""ZeRO, stage 1: each rank keeps the optimizer's state of one n-th of the parameters, and steps only those.

Rajbhandari et al. 2020, "ZeRO: Memory Optimizations Toward Training Trillion Parameter Models", section 5.1 (P_os).
In plain data parallelism every rank holds the same moments and computes the same update, n times over. Here rank r
updates the r-th partition of the parameters alone. One all-gather then hands the new values to everyone.

    sharded                the optimizer's state: moments, and master copies where there are such
    replicated             parameters and gradients
    sent per step and rank (n-1)/n N elements, beside the 2 (n-1)/n N of the all-reduce that averaged the gradients
    held per rank          under Adam 8 + 8/n bytes per parameter in float32; 4 + 12/n in bfloat16 with `master_dtype`

N is the number of parameters (the paper's Psi), padded by at most n - 1 elements for each dtype among them; its N_d is
n here.
`flat_vector.py` lays the parameters end to end and cuts them, `zero_state.py` saves and loads, `zero_guards.py` refuses
what cannot go well.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from itertools import count
from math import inf
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from parallel_lab.agree.arguments import keyword_only
from parallel_lab.data_parallel.checkpoint import copy_settings
from parallel_lab.data_parallel.flat_vector import FlatVector, partition, step_shards
from parallel_lab.data_parallel.zero_guards import StepGuards
from parallel_lab.data_parallel.zero_state import ShardedOptimizer
from parallel_lab.plan import SEND, Op, Plan
from parallel_lab.runtime.group import member
from parallel_lab.trace import span


def plan(n: int, vectors: int = 1, *, first: int = 0, guarded: bool = True, axis: str = "") -> Plan:
    """One step on `n` ranks: `update`, then an `all_gather` for each flat vector, of which there is one for each dtype.

    Zero1 sees no microbatches, so the `mb` of its ops is the number of the step, `first`. An all-gather needs the
    update of *every* rank, because each has a part of it. `guarded`: the ranks first agree, by an `all_reduce` of one
    flag, that all of them can step.

    Raises:
        ValueError: n or vectors is below 1.
    """
    if min(n, vectors) < 1:
        raise ValueError(f"n={n}, vectors={vectors}: expected at least 1 of each")
    steps: dict[Op, list[Op]] = {}  # each with what it needs
    updates = [Op(rank, "update", 0, first, phase="step") for rank in range(n)]
    for rank in range(n):
        send = partial(Op, rank, mb=first, lane=SEND, axis=axis, phase="step")
        flag = [send("all_reduce", 0)] * guarded
        steps |= {op: [] for op in flag} | {updates[rank]: flag}
        steps |= {send("all_gather", part): updates for part in range(vectors)}
    return Plan.of(steps, steps)


class Zero1(ShardedOptimizer):
    """A drop-in optimizer whose state is sharded. Give it averaged gradients, as DDP leaves them, and call `step()`.

    Parameter groups, `zero_grad`, learning rate schedulers, gradient scalers and `memory.track` work as with any
    optimizer. Parameters become views of one flat vector for each dtype, and start from rank 0's values. Frozen ones
    are left alone. `state` has, by parameter, what this rank holds for its piece of it: `shard` (a view, or the master
    copy) and `optimizer` (the moments).

    `params` are tensors, (name, tensor) pairs, or groups, as torch takes them. `optimizer_class`, which gets `lr` and
    the like, updates each element by itself, as `torch.optim.AdamW` does (see `flat_vector.py`). With `master_dtype`
    each rank holds a copy of its shard in that dtype and steps it instead: `torch.float32` for bfloat16 parameters.
    `check_finite` looks for NaN and infinity in the gradients that this rank steps; `step()` then raises before
    anything is changed on any rank. Averaged gradients no longer show whose NaN it was; `DDP` says so before.

    Raises:
        ValueError: no parameters, all of them frozen, a negative learning rate, an optimizer that looks at whole
            tensors, or ranks with different parameters.
        TypeError: a learning rate that is no number.
    """

    @keyword_only("lr")
    def __init__(
        self,
        params: Iterable,
        optimizer_class: Callable[..., torch.optim.Optimizer],
        *,
        master_dtype: torch.dtype | None = None,
        check_finite: bool = True,
        guards: Callable[[Any], Any] = StepGuards,
        group: dist.ProcessGroup | None = None,
        **optimizer_kwargs,
    ) -> None:
        params, self.check_finite, self._guard = list(params), check_finite, guards(self)
        whole = self.whole_optimizer(optimizer_class, params, optimizer_kwargs)
        super().__init__(whole.param_groups, dict(whole.defaults))
        self.group, self.names, self._steps = member(group), _names(self.param_groups), count()
        trained = [(name, p) for p, name in self.names.items() if p.requires_grad]
        everything = nn.ParameterList(self.names)
        self.start_equal(everything, [p for _, p in trained], names=list(self.names.values()))
        self.vectors = [FlatVector(named, self.group, master_dtype) for named in partition(trained, inf)]
        self.shard_optimizer(self.param_groups)
        for piece in self.pieces:
            self.state[piece.parameter] = {"shard": piece.shard, "optimizer": self.optimizer.state[piece.shard]}

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Updates this rank's partition and gathers everyone's. Returns what `closure`, called first, returned.

        Raises:
            ValueError: gradients that are not finite, a negative learning rate, or parameters that were moved
                elsewhere (`model.to(...)`) after Zero1 was made. Nothing was changed on any rank.
            TypeError: a learning rate that is no number.
        """
        with torch.enable_grad():
            loss = closure() if closure else None
        step_index = next(self._steps)
        self._guard.before_step(step_index)
        for piece in self.pieces:
            piece.view.grad = piece.gradient()
        copy_settings(self.param_groups, self.optimizer.param_groups)  # a scheduler writes into ours
        with span("update", mb=step_index, phase="step"):
            step_shards(self.optimizer, self.pieces)
        copy_settings(self.optimizer.param_groups, self.param_groups)  # some optimizers count their steps there
        self.gather(step_index)
        for piece in self.pieces:
            piece.view.grad = None
        self._guard.after_step()
        return loss


def _names(groups: Iterable[Mapping[str, Any]]) -> dict[nn.Parameter, str]:
    """Each parameter's name: the one that it was given to the optimizer with, or its number."""
    named: dict[nn.Parameter, str] = {}
    for group in groups:
        for place, parameter in enumerate(group["params"]):
            named[parameter] = group["param_names"][place] if "param_names" in group else str(len(named))
    return named
