"""DiLoCo's outer step, alone: on the tensors of a rank, and in virtual time.

Source: Douillard et al. 2023, "DiLoCo: Distributed Low-Communication Training of Language Models", algorithm 1;
Nesterov's momentum in the form of `torch.optim.SGD(nesterov=True)`.
"""

from torch import Tensor


def outer_step(theta: Tensor, m: Tensor, delta: Tensor, lr: float, mu: float) -> None:
    """Steps against the outer gradient `delta`, in place: `m` and `theta` become the new momentum and weights.

    m = mu m + delta; theta = theta - lr (delta + mu m). All of one shape.
    """
    m.mul_(mu).add_(delta)
    theta.sub_(delta + mu * m, alpha=lr)
