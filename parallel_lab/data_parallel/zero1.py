"""ZeRO, stage 1: each rank keeps the optimizer's state of one n-th of the parameters, and steps only those.

Rajbhandari et al. 2020, "ZeRO: Memory Optimizations Toward Training Trillion Parameter Models", section 5.1.
In plain data parallelism every rank holds the same moments and computes the same update, n times over. Here rank r
updates its n-th of the parameters alone, and one all-gather (see `flat.exchange`) hands the new values to everyone.
Since an update of one element needs nothing of the others (see `flat.py`), the result is that of the whole optimizer.

Sharded: moments and master copies. Replicated: parameters and gradients.
Sent per rank and step: (n-1)/n Psi, beside the 2 (n-1)/n Psi of the all-reduce that averaged the gradients (DDP).
Held per rank under Adam: 8 + 8/n bytes a parameter in float32; 4 + 12/n with bfloat16 parameters and `master_dtype`.
Padding: at most n - 1 elements for each dtype among the parameters.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from parallel_lab.agree.arguments import check_rate, rate_problem
from parallel_lab.agree.finite import gradient_problem, is_finite
from parallel_lab.agree.problem import agree
from parallel_lab.agree.same_model import broadcast_tensors, check_same_model
from parallel_lab.data_parallel import flat
from parallel_lab.data_parallel import old_checkpoint as checkpoint
from parallel_lab.data_parallel.flat import Layout, Piece
from parallel_lab.runtime.group import member
from parallel_lab.trace import span

OptimizerClass = Callable[..., torch.optim.Optimizer]


class Zero1(torch.optim.Optimizer):
    """A drop-in optimizer whose state is sharded. Give it averaged gradients, as DDP leaves them, and call `step()`.

    Parameter groups, `zero_grad`, learning rate schedulers and `memory.track` work as with any optimizer. Parameters
    become views of one flat vector for each dtype, and start from rank 0's values. A rank with NaN or infinity in the
    gradients that it steps, or with a wrong learning rate, raises before anything is changed on any rank. Averaged
    gradients no longer show whose NaN it was; `DDP` and `average_gradients` say so before.

    Args:
        params: tensors, (name, tensor) pairs, or groups, as torch takes them. Frozen ones are left alone.
        optimizer_class: updates each element by itself, as `torch.optim.AdamW` does (see `flat.py`).
        group: who shares the state; the default group if None.
        master_dtype: of a copy that each rank holds of its shard and steps instead, `torch.float32` for bfloat16
            parameters. Without it the shard is a view of the parameters.
        optimizer_kwargs: for `optimizer_class`.

    Attributes:
        state: by parameter, what this rank holds for its piece of it: `shard` (a view, or the master copy) and
            `optimizer` (the moments). A parameter without a piece here has no entry.

    Raises:
        ValueError: no parameters, all of them frozen, a negative learning rate, or ranks with different parameters.
        TypeError: a learning rate that is no number.
    """

    def __init__(
        self,
        params: Iterable,
        optimizer_class: OptimizerClass,
        group: dist.ProcessGroup | None = None,
        master_dtype: torch.dtype | None = None,
        **optimizer_kwargs,
    ) -> None:
        params = list(params)
        if not params:
            raise ValueError("Zero1 got no parameters: a generator that was used up, or a model without any")
        check_rate(optimizer_kwargs)
        if isinstance(params[0], dict) and (problem := rate_problem(params)):
            raise problem
        like = optimizer_class(params, **optimizer_kwargs)  # checks the arguments, and fills in the defaults
        super().__init__(like.param_groups, dict(like.defaults))
        self.group, self.master_dtype = member(group), master_dtype
        self._names = _names(self.param_groups)
        trained = [p for p in self._names if p.requires_grad]
        if not trained:
            raise ValueError("Zero1 got no parameter to train: all have requires_grad=False")
        check_same_model(nn.ParameterList(self._names), self.group, names=list(self._names.values()))
        self._flats = [self._move_in(same) for same in _by_dtype(trained)]
        self._cut(optimizer_class, optimizer_kwargs)

    def _move_in(self, parameters: list[nn.Parameter]) -> tuple[Layout, list[nn.Parameter], Tensor]:
        layout = Layout.of([(self._names[p], p.shape) for p in parameters], self.group.size())
        vector = flat.move_in(parameters, layout)
        broadcast_tensors([vector], self.group)
        return layout, parameters, vector

    def _cut(self, optimizer_class: OptimizerClass, optimizer_kwargs: dict) -> None:
        """Makes the optimizer of this rank's pieces, in the same groups as the parameters they are of."""
        self._pieces: dict[nn.Parameter, tuple[Piece, nn.Parameter]] = {}
        for layout, parameters, _ in self._flats:
            named = {self._names[p]: p for p in parameters}
            for piece in layout.pieces(self.group.rank()):
                parameter = named[piece.name]
                view = parameter.detach().view(-1)[piece.start : piece.stop]
                shard = view if self.master_dtype is None else view.to(self.master_dtype, copy=True)
                self._pieces[parameter] = piece, nn.Parameter(shard)
        groups = [
            {**checkpoint.settings(group), "params": [self._pieces[p][1] for p in group["params"] if p in self._pieces]}
            for group in self.param_groups
        ]
        self.optimizer = optimizer_class(groups, **optimizer_kwargs)
        for parameter, (_, shard) in self._pieces.items():
            self.state[parameter] = {"shard": shard, "optimizer": self.optimizer.state[shard]}

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Updates this rank's shard and gathers everyone's; returns what `closure` returned, if one was given.

        ValueError or TypeError, with nothing changed on any rank, for gradients that are not finite, a wrong learning
        rate, or parameters that were moved elsewhere (`model.to(...)`) after Zero1 was made.
        """
        with torch.enable_grad():
            loss = closure() if closure else None
        agree(self._problem(), self.group, self._flats[0][2].device)
        for mine, theirs in zip(self.optimizer.param_groups, self.param_groups, strict=True):
            mine.update(checkpoint.settings(theirs))  # a scheduler writes into ours
        with span("update"):
            self._update()
        self._gather()
        return loss

    def _gather(self) -> None:
        """Fills the flat vectors with the shares of all ranks."""
        for works in [flat.exchange(vector, layout, self.group) for layout, _, vector in self._flats]:
            for work in works:
                work.wait()

    def _update(self) -> None:
        """Steps the pieces. Gradients are views; with master copies one is converted at a time."""
        for parameter, (piece, shard) in self._pieces.items():
            if parameter.grad is None:
                continue
            gradient = parameter.grad.reshape(-1)[piece.start : piece.stop]
            shard.grad = gradient.to(shard.dtype)
            if self.master_dtype is not None:
                self.optimizer.step()
                parameter.view(-1)[piece.start : piece.stop].copy_(shard)
                shard.grad = None
        if self.master_dtype is None:
            self.optimizer.step()
        for _, shard in self._pieces.values():
            shard.grad = None

    def _problem(self) -> Exception | None:
        """Why this rank cannot step; None if it can."""
        for layout, parameters, vector in self._flats:
            if name := flat.moved(vector, layout, parameters):
                return flat.moved_problem(name, "Zero1")
        trained = {p for _, parameters, _ in self._flats for p in parameters}
        for parameter, name in self._names.items():
            if parameter.grad is not None and parameter not in trained:
                return ValueError(f"{name} was frozen when Zero1 was made, and has a gradient now: make a new Zero1")
        for parameter, (piece, _) in self._pieces.items():
            if parameter.grad is not None and not is_finite(parameter.grad.reshape(-1)[piece.start : piece.stop]):
                return gradient_problem(piece.name, f"rank {self.group.rank()}")
        return rate_problem(self.param_groups)

    def add_param_group(self, param_group: dict) -> None:
        """Groups are given when Zero1 is made: the flat vectors are cut then. ValueError later."""
        if hasattr(self, "_flats"):
            raise ValueError("Zero1 cannot take another group: give all groups to Zero1(...)")
        super().add_param_group(param_group)

    def state_dict(self) -> checkpoint.Shard:  # pyright: ignore[reportIncompatibleMethodOverride] (another form)
        """What this rank holds, in the form that `checkpoint.py` describes; every rank has to save its own."""
        pieces = {}
        for piece, shard in self._pieces.values():
            pieces |= {piece.name: checkpoint.cut(piece._replace(at=0), shard, self.optimizer.state[shard])}
        layouts = [layout for layout, _, _ in self._flats]
        shard = checkpoint.shard("zero1", self.group, layouts, pieces, self.optimizer, {})
        return shard | {"groups": checkpoint.hyperparameters(self.param_groups)}

    @torch.no_grad()
    def load_state_dict(self, state_dict: checkpoint.Shard) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Takes over this rank's shard: weights, moments and hyperparameters. All ranks have to call it.

        ValueError that says why, with nothing changed on any rank, for a checkpoint of another world size, model or
        optimizer.
        """
        device = self._flats[0][2].device
        agree(checkpoint.why_not(state_dict, self.state_dict), self.group, device)
        for parameter, (piece, shard) in self._pieces.items():
            saved = state_dict["pieces"][piece.name]
            shard.copy_(saved["values"])
            parameter.view(-1)[piece.start : piece.stop].copy_(shard)
            held = self.optimizer.state[shard]
            held.clear()
            held.update(checkpoint.copied(saved["state"], device))
        checkpoint.restore_groups(self.param_groups, state_dict["groups"])
        self._gather()


def _names(groups: Iterable[dict]) -> dict[nn.Parameter, str]:
    """Each parameter's name: the one it was given with, or its number."""
    named: dict[nn.Parameter, str] = {}
    for group in groups:
        for place, parameter in enumerate(group["params"]):
            named[parameter] = group["param_names"][place] if "param_names" in group else str(len(named))
    return named


def _by_dtype(parameters: Iterable[nn.Parameter]) -> list[list[nn.Parameter]]:
    """The parameters that can share a flat vector, in the order in which they come."""
    found: dict[tuple, list[nn.Parameter]] = {}
    for parameter in parameters:
        found.setdefault((parameter.dtype, parameter.device), []).append(parameter)
    return list(found.values())
