"""Loss scaling: gradients too small for float16 are moved into its range, and steps in which they overflow are skipped.

Micikevicius et al. 2018, "Mixed Precision Training", section 3.2; the rule that changes the scale is that of
`torch.amp.GradScaler`. The loss times the scale gives gradients times the scale, for the chain rule is linear. Before
anything looks at them they are divided by it. If it was too large, some are infinite or NaN: then this step is left
out, on *all* ranks, and the scale is halved; after 2,000 clean steps it is doubled. So it stays just below what
overflows.

    sent per step          one flag of 4 bytes, all-reduced over all ranks of the layout, whatever they hold: a rank
                           that skips alone has other weights from then on, and no error tells
    held per rank          the scale and a count

bfloat16 needs none of it: it has the exponents of float32. The order in a step is fixed:

    scaler.scale(loss).backward()      gradients times the scale; averaged over the data ranks as they are
    scaler.unscale(optimizer)          once: divided by the scale, in float32; the ranks agree whether all are finite
    clip(...)                          now gradients have their true size
    scaler.step(optimizer)             or not; False where it was skipped
    scaler.update()

What refuses gradients that are not finite has to let them pass: `DDP(check_finite=False)`, and Zero1 to Zero3 likewise.
In a layout of all axes, `hybrid.train_step(..., scale=DynamicScale())` does all of it.
"""

from collections.abc import Iterable
from math import isfinite
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.utils import get_total_norm

from parallel_lab.agree.arguments import keyword_only, number, whole
from parallel_lab.runtime.device import rank_device
from parallel_lab.runtime.group import member
from parallel_lab.trace import tag

FLAG_BYTES = 4  # one float32 a step


class StaticScale:
    """Loss scaling by one factor. A step whose gradients are not all finite is skipped all the same.

    Args:
        scale: a power of two loses no bit.
        group: the ranks that skip together, which are all that train one model: the default group, unless it trains
            several. Without a process group a single process decides.

    Raises:
        ValueError: the scale is 0, negative, infinite or NaN.
    """

    @keyword_only()
    def __init__(self, scale: float, *, group: dist.ProcessGroup | None = None) -> None:
        if not number("scale", scale):
            raise ValueError("scale=0.0: every gradient would be 0")
        self.value, self.group = float(scale), group
        self._finite: dict[Tensor, bool] = {}  # by parameter unscaled since the last update: whether all were finite
        self._stepped: list[Any] = []  # the optimizers that stepped, or did not, since the last update
        self._flags = 0  # all-reduced so far; they number the messages in a trace

    def scale(self, loss: Tensor) -> Tensor:
        """The loss times the scale, in float32: in float16 that scale would be infinite. Log the loss, not this."""
        return loss.to(torch.promote_types(loss.dtype, torch.float32)) * self.value

    @torch.no_grad()
    def unscale(self, optimizer: Any) -> bool:
        """Divides the gradients by the scale, once a step; whether they are finite on all ranks.

        Args:
            optimizer: what has `param_groups`, or the parameters themselves.

        Raises:
            ValueError: it was done already since the last update; or gradients are in float16, in which they would be
                lost again when the scale is taken out. Nothing was divided or sent.
        """
        parameters = _parameters(optimizer)
        if any(p in self._finite for p in parameters):
            raise ValueError(f"{_where()}unscale() twice before update(): the gradients would be divided by S twice")
        if hasattr(optimizer, "take_gradients"):  # MasterWeights: into float32 first
            optimizer.take_gradients()
        grads = [p.grad for p in parameters if p.grad is not None and p.grad.numel()]
        if any(grad.dtype == torch.float16 for grad in grads):
            raise ValueError(
                f"{_where()}gradients in float16 cannot be unscaled: what scaling saved would underflow again. Keep"
                " float32 parameters (MixedPrecision), or use MasterWeights"
            )
        for grad in grads:
            grad *= 1 / self.value
        finite = self._agreed(grads)
        self._finite.update(dict.fromkeys(parameters, finite))
        return finite

    def step(self, optimizer: Any) -> bool:
        """Steps `optimizer` if all gradients of all ranks are finite; False where the step was skipped on all ranks.

        Raises:
            ValueError: it stepped already since the last update; or as `unscale`, which is called where it was not.
        """
        if any(each is optimizer for each in self._stepped):
            raise ValueError(f"{_where()}step() twice before update(): call update() at the end of each step")
        parameters = _parameters(optimizer)
        if not any(p in self._finite for p in parameters):
            self.unscale(optimizer)
        self._stepped.append(optimizer)
        finite = all(self._finite[p] for p in parameters if p in self._finite)
        if finite:
            optimizer.step()
        return finite

    def update(self) -> None:
        """The step is over: forgets what was found, once all optimizers have stepped. All ranks come to the same scale.

        Raises:
            ValueError: no gradient was looked at since the last update.
        """
        if not self._finite:
            raise ValueError(f"{_where()}update() without step(): nothing is known of the gradients")
        self._adapt(all(self._finite.values()))
        self._finite.clear()
        self._stepped.clear()

    def _adapt(self, clean: bool) -> None:
        """Changes the scale after a step."""

    def _agreed(self, grads: list[Tensor]) -> bool:
        """Whether all are finite on every rank: one all-reduce, which ranks without a gradient join as well."""
        device = grads[0].device if grads else rank_device()
        largest = get_total_norm(grads, torch.inf).to(device)  # NaN or infinite if any number is; 0.0 of none
        found = (~largest.isfinite()).float()
        if dist.is_initialized():
            with tag(mb=self._flags, phase="overflow"):
                dist.all_reduce(found, dist.ReduceOp.MAX, member(self.group))
            self._flags += 1
        return not found.item()

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs."""
        return {"scale": self.value}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes back what `state_dict` gave."""
        self.value = float(state["scale"])


class DynamicScale(StaticScale):
    """Loss scaling whose factor finds its place: it grows after `interval` clean steps and backs off after a skipped.

    Args:
        initial: the first scale.
        growth: what the scale is multiplied by after `interval` clean steps in a row.
        backoff: what the scale is multiplied by after a step that was skipped.
        interval: how many steps.
        group: as of `StaticScale`.

    Raises:
        ValueError: growth is not above 1, backoff is not between 0 and 1, or as `StaticScale`.
    """

    @keyword_only()
    def __init__(
        self,
        initial: float = 2.0**16,
        growth: float = 2.0,
        backoff: float = 0.5,
        interval: int = 2000,
        *,
        group: dist.ProcessGroup | None = None,
    ) -> None:
        super().__init__(initial, group=group)
        if not (number("growth", growth) > 1 > number("backoff", backoff) > 0):
            raise ValueError(f"growth={growth}, backoff={backoff}: expected growth above 1, and backoff from 0 to 1")
        self.growth, self.backoff, self.interval = growth, backoff, whole("interval", interval)
        self.clean = 0  # steps since the last change of the scale

    def _adapt(self, clean: bool) -> None:
        self.clean = self.clean + 1 if clean else 0
        if not clean:
            self.value = _float32(self.value * self.backoff)
        elif self.clean == self.interval:
            self.clean, grown = 0, _float32(self.value * self.growth)
            self.value = grown if isfinite(grown) else self.value

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs, under the names of `torch.amp.GradScaler`: each loads the other's."""
        return {
            "scale": self.value,
            "growth_factor": self.growth,
            "backoff_factor": self.backoff,
            "growth_interval": self.interval,
            "_growth_tracker": self.clean,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes back what `state_dict` gave, here or there."""
        super().load_state_dict(state)
        self.growth, self.backoff = state["growth_factor"], state["backoff_factor"]
        self.interval, self.clean = state["growth_interval"], state["_growth_tracker"]


def _parameters(optimizer: Any) -> list[Tensor]:
    """What `optimizer` steps; of `MasterWeights` both copies, of which one has gradients."""
    groups: Iterable[Any] = getattr(optimizer, "param_groups", None) or [{"params": list(optimizer)}]
    copies = optimizer.parameters if hasattr(optimizer, "take_gradients") else ()
    return [*copies, *(p for group in groups for p in group["params"])]


def _float32(value: float) -> float:
    return torch.tensor(value, dtype=torch.float32).item()


def _where() -> str:
    return f"rank {dist.get_rank()}: " if dist.is_initialized() else ""
