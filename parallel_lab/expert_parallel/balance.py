"""Balance without dropping: a bias that follows the load, the loss over sequences, and experts placed by their load.

Wang et al. 2024, "Auxiliary-loss-free load balancing strategy for mixture-of-experts", algorithm 1, which DeepSeek-V3
trains with; DeepSeek-AI 2024, "DeepSeek-V3", sections 2.1.2 and 3.4 (experts are placed anew by their observed load).
Graham 1969, "Bounds on multiprocessing timing anomalies", for the greedy rule of placement.

An expert that got more than the mean gets a smaller bias, one that got less a larger one, by the same small step. What
counts is the load of the *global* batch: ranks that follow their own counts would soon choose by different biases, and
no error would tell. Once a step, one all-reduce of E numbers a layer; the loss needs no message, unless ranks hold
parts of the same sequences.
"""

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn

from parallel_lab.agree.arguments import keyword_only, number, whole
from parallel_lab.collectives.passes import named
from parallel_lab.model.experts import MixtureOfExperts
from parallel_lab.runtime.group import member
from parallel_lab.trace import tag


def mixtures(model: nn.Module) -> list[MixtureOfExperts]:
    """The mixtures of experts in `model`, in their order."""
    return [module for module in model.modules() if isinstance(module, MixtureOfExperts)]


@keyword_only()
@torch.no_grad()
def update_bias(model: nn.Module, *, rate: float, group: dist.ProcessGroup | None = None) -> None:
    """Moves the bias of each mixture by `rate`, up where the load was below its mean and down where it was above.

    Call it once a step, on all ranks, after the last microbatch: the load is what was chosen in training mode since the
    last call, summed over `group`. It works on whole models and on those that `expert_parallel` has cut.

    Args:
        model: what was trained; without a mixture nothing happens, and nothing is sent.
        rate: the step; DeepSeek-V3 took 0.001 for most of its training. Keep biases of that size out of 16 bits.
        group: all ranks that read parts of the batch, each part once; by default all ranks.

    Raises:
        ValueError: the rate is negative, infinite or NaN.
    """
    number("rate", rate)
    found, group = mixtures(model), member(group)
    if not found:
        return
    loads = torch.stack([mixture.load for mixture in found])
    with named(group, "step"), tag(kind="load"):
        dist.all_reduce(loads, group=group)
    for mixture, load in zip(found, loads, strict=True):
        mixture.bias += rate * torch.sign(load.sum() - len(load) * load).to(mixture.bias.dtype)
        mixture.load.zero_()


@keyword_only()
def share_sequences(model: nn.Module, *, group: dist.ProcessGroup | None = None) -> None:
    """The ranks of `group` hold parts of the same sequences: the balance loss counts choices over all of them.

    Its gradient is then that of each rank's own tokens, to be added up over the ranks, not averaged.
    """
    group = member(group)

    def summed(x: Tensor) -> Tensor:
        with named(group), tag(kind="balance"):
            dist.all_reduce(x, group=group)
        return x

    for mixture in mixtures(model):
        mixture.over_sequence = summed


def placement(load: Sequence[float] | Tensor, ranks: int) -> list[list[int]]:
    """The experts of each rank, such that the most loaded rank has little: the heaviest expert first, to the lightest.

    No rank gets more than E/ranks experts, rounded up, so that memory stays equal. The greedy rule is not the best one:
    without that limit it is within 4/3 of the best (Graham 1969). Of equal experts, and of equal ranks, the one with
    the lower number comes first.

    Args:
        load: what each of the E experts has to do, as the sum of `MixtureOfExperts.load` over the ranks.
        ranks: how many ranks share the experts.

    Raises:
        ValueError: there are more ranks than experts, or a load is negative.
    """
    loads = [float(each) for each in load]
    if len(loads) < whole("ranks", ranks) or min(loads) < 0:
        raise ValueError(
            f"{len(loads)} experts with loads from {min(loads, default=0)} on {ranks} ranks: expected an"
            " expert a rank, and no negative load"
        )
    most, held = -(-len(loads) // ranks), [0.0] * ranks
    placed: list[list[int]] = [[] for _ in range(ranks)]
    for expert in sorted(range(len(loads)), key=lambda each: -loads[each]):
        rank = min((r for r in range(ranks) if len(placed[r]) < most), key=lambda r: (held[r], len(placed[r])))
        placed[rank].append(expert)
        held[rank] += loads[expert]
    return [sorted(numbers) for numbers in placed]
