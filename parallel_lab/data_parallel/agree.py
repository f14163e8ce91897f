"""What the ranks have to agree on before anything is sent or changed, so that trouble on one costs none its state.

A sharded step that one rank refuses leaves the others with half a model. So ranks first exchange one flag. The rank
that has a problem raises it; the others wait in a barrier, so that the launch names the culprit, and raise too if it
joins them there after having caught its own error.
"""

from collections.abc import Callable, Iterable
from math import isfinite

import torch
import torch.distributed as dist
from torch import Tensor

from parallel_lab.data_parallel.flat import Layout
from parallel_lab.data_parallel.same_model import wait_for_the_culprit

FLAG_BYTES = 4  # one float32: what `ask` all-reduces


def ask(problem: Exception | None, group: dist.ProcessGroup, device: torch.device) -> Callable[[], None]:
    """Starts telling the other ranks whether this one has a problem; call what it returns to hear from them.

    That call raises `problem` on the ranks that have one. On the others it returns if all is well; otherwise it waits
    in a barrier and raises ValueError.
    """
    flag = torch.tensor([0.0 if problem is None else 1.0], dtype=torch.float32, device=device)
    work = dist.all_reduce(flag, dist.ReduceOp.MAX, group, async_op=True)

    def hear() -> None:
        assert work is not None
        work.wait()
        if problem is not None:
            raise problem
        if flag.item():
            wait_for_the_culprit(group, "another rank refused, and its own message says why; nothing was changed here")

    return hear


def agree(problem: Exception | None, group: dist.ProcessGroup, device: torch.device) -> None:
    """`ask`, and hear at once."""
    ask(problem, group, device)()


def check_rate(rate: object) -> None:
    """Raises TypeError or ValueError unless `rate` is a learning rate: a finite number of at least 0."""
    if isinstance(rate, Tensor) and rate.numel() == 1:
        rate = rate.item()
    if isinstance(rate, bool) or not isinstance(rate, int | float):
        raise TypeError(f"a learning rate of {rate!r} ({type(rate).__name__}): expected one number, such as lr=0.1")
    if not (isfinite(rate) and rate >= 0):
        raise ValueError(f"a learning rate of {rate!r}: expected a finite number of at least 0")


def rate_problem(groups: Iterable[dict]) -> Exception | None:
    """What is wrong with the learning rates of an optimizer's groups; None if nothing is."""
    try:
        for group in groups:
            if "lr" in group:
                check_rate(group["lr"])
    except (TypeError, ValueError) as error:
        return error
    return None


def is_finite(tensor: Tensor) -> bool:
    """Whether `tensor` holds neither NaN nor infinity. One pass: a sum cannot hide either of them.

    A sum can overflow where no element does, so an odd sum is looked at again.
    """
    return bool(torch.isfinite(tensor.sum())) or bool(torch.isfinite(tensor).all())


def gradient_problem(name: str, rank: int) -> ValueError:
    """The error for a gradient of parameter `name` that `rank` computed and that is not finite."""
    text = f"rank {rank}: the gradient of {name} is NaN or infinite; no weight and no moment was changed"
    return ValueError(f"{text}. Look at this rank's batch and loss, lower the learning rate, or clip the gradients.")


def flat_gradient_problem(flat: Tensor, layout: Layout, rank: int) -> ValueError | None:
    """`gradient_problem` for the first parameter of `flat` (numel,) with a value that is not finite, if any."""
    if is_finite(flat):
        return None
    first = int(torch.isfinite(flat).logical_not().nonzero()[0])
    return gradient_problem(layout.name_at(first), rank)
