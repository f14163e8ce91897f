"""What a policy samples, and how a reward becomes a gradient: groups of answers, an importance ratio, a clip.

Shao et al. 2024, "DeepSeekMath", section 4.1 (GRPO): several answers to one prompt are each other's baseline, so no
second network has to guess the value. Schulman et al. 2017, "Proximal policy optimization algorithms", equation 7 (the
clipped ratio). An answer is sampled from the weights that the rollout rank has, and its gradient is taken at the
trainer's. The ratio of the two probabilities of a token, new over old, corrects for the difference; where the weights
are equal it is 1, and the gradient is REINFORCE's with that baseline. The paper's penalty for the distance to a
reference model is left out.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from parallel_lab.systems.reinforcement.task import Sorting
from parallel_lab.systems.serving import Decoder


class Rollout(NamedTuple):
    """Answers of one version of the weights, with what the trainer needs of them; rows in the order of the prompts."""

    sequences: Tensor  # (rows, 2 length + 1), prompts and answers
    log_probabilities: Tensor  # (rows, length), of the sampled tokens, under the weights that sampled them
    rewards: Tensor  # (rows,)


@torch.no_grad()
def sample(decoder: Decoder, task: Sorting, prompts: Tensor, noise: Tensor) -> Rollout:
    """An answer to each prompt (rows, length + 1): prefill all, then decode; `noise` (rows, length, vocab) chooses."""
    slots = range(len(prompts))
    logits, tokens, chosen = decoder.read(prompts, slots), [], []
    for place in range(task.length):
        probabilities = logits.log_softmax(-1)
        token = (probabilities + noise[:, place]).argmax(-1)
        tokens.append(token)
        chosen.append(probabilities.gather(-1, token[:, None])[:, 0])
        if place + 1 < task.length:
            logits = decoder.decode(token, slots)
    for slot in slots:
        decoder.cache.free(slot)
    answers = torch.stack(tokens, -1)
    return Rollout(torch.cat([prompts, answers], -1), torch.stack(chosen, -1), task.reward(prompts, answers))


def advantages(rewards: Tensor, samples: int) -> Tensor:
    """(rows,): each reward against the mean of its group of `samples` answers, over the group's deviation.

    A group whose answers are all right, or all wrong, teaches nothing: all of its advantages are 0.
    """
    groups = rewards.view(-1, samples)
    centered = groups - groups.mean(1, keepdim=True)
    return (centered / (groups.std(1, keepdim=True) + 1e-4)).flatten()


def objective(new: Tensor, old: Tensor, advantage: Tensor, *, clip: float | None) -> Tensor:
    """The loss, a scalar; `new` and `old` (rows, length) are log-probabilities of the sampled tokens.

    Args:
        new: under the trainer's weights, with a gradient.
        old: under the weights that sampled.
        advantage: (rows,), one for all tokens of an answer.
        clip: how far from 1 the ratio counts; None leaves the ratio out, as if the trainer had sampled.
    """
    if clip is None:
        return -(new * advantage[:, None]).mean()
    ratio = (new - old).exp()
    bounded = ratio.clamp(1 - clip, 1 + clip)
    return -torch.minimum(ratio * advantage[:, None], bounded * advantage[:, None]).mean()
