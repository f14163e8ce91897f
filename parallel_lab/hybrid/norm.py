"""The global norm of the gradients in any layout: the squares of each number of the model once, added over all ranks.

Pascanu et al. 2013, "On the difficulty of training recurrent neural networks", section 3.2, clips by it. Three mistakes
are classic: a norm for each stage or shard, by which every rank scales differently; what is replicated over tp, or tied
over pp, counted several times; and experts counted once for each rank that has them. All are mended by one account,
`parameters.held`: of the ranks that hold the same piece, one answers for it.

    sent per step          one number, all-reduced over all ranks

The test of it needs no model to be right: where every gradient is 1, the norm is the root of the number of parameters.
"""

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from parallel_lab.hybrid.guard import fused
from parallel_lab.hybrid.parallel import Parallel
from parallel_lab.hybrid.parameters import answered
from parallel_lab.trace import tag

EPSILON = 1e-6  # that of torch's clipping


@torch.no_grad()
def global_norm(parallel: Parallel) -> Tensor:
    """The 2-norm of the gradient of the whole model, the same on all ranks: a scalar in float64. All ranks call it."""
    mine = [each.gradient for each in answered(parallel)]
    norm = get_total_norm([gradient for gradient in mine if gradient is not None and gradient.numel()])
    squares = norm.to(parallel.device, torch.float64).square()
    if parallel.layout.world > 1:
        with tag(mb=parallel.steps, phase="norm"):
            dist.all_reduce(squares)
    return squares.sqrt()


@torch.no_grad()
def clip(parallel: Parallel, norm: Tensor) -> None:
    """Scales all gradients of this rank by clip / norm, where the norm is above `parallel.clip`.

    A fused optimizer divides them by `grad_scale` while it reads them, which spares a pass over all.
    """
    if parallel.clip is None:
        return
    if fused(parallel.optimizer):
        parallel.optimizer.grad_scale = ((norm + EPSILON) / parallel.clip).clamp(min=1.0).float()
    else:
        parameters = list(parallel.named_parameters().values())
        wide = torch.promote_types(parameters[0].dtype, torch.float32)
        clip_grads_with_norm_(parameters, parallel.clip, norm.to(wide))
