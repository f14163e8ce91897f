"""Distillation: a small model learns from what a large one says of each example, and not from labels alone.

Hinton et al. 2015, "Distilling the knowledge in a neural network", section 2. Three ideas:

- The teacher's probabilities say more than the label: which wrong answers are nearly right.
- Logits are divided by a temperature first, so that small probabilities count.
- Gradients of the softened loss shrink as 1/temperature^2, so it is multiplied by temperature^2; and the loss on labels
  stays beside it.

The student has the size that one chooses: what it stores, sends and computes is its own. The teacher only runs forward.
"""

import torch.nn.functional as F
from torch import Tensor

from parallel_lab.model import loss as cross_entropy


def distillation_loss(
    student: Tensor, teacher: Tensor, targets: Tensor, *, temperature: float = 2.0, weight: float = 0.5
) -> Tensor:
    """`weight` temperature^2 KL(teacher || student), both softened, and `1 - weight` times the loss on the labels.

    Args:
        student: logits (..., classes).
        teacher: logits of the same shape; no gradient goes there.
        targets: (...), int64.
        temperature: more than 0.
        weight: between 0, labels alone, and 1, the teacher alone.

    Returns:
        The mean over all targets, in nats.

    Raises:
        ValueError: shapes differ, or `temperature` or `weight` is out of its range.
    """
    if student.shape != teacher.shape or not temperature > 0 or not 0 <= weight <= 1:
        given = f"{tuple(student.shape)} and {tuple(teacher.shape)}, temperature {temperature}, weight {weight}"
        raise ValueError(f"logits of {given}: expected one shape, a temperature over 0, a weight in [0, 1]")
    mine, theirs = (F.log_softmax(each / temperature, -1).flatten(0, -2) for each in (student, teacher.detach()))
    divergence = F.kl_div(mine, theirs, reduction="batchmean", log_target=True)
    return weight * temperature**2 * divergence + (1 - weight) * cross_entropy(student, targets)
