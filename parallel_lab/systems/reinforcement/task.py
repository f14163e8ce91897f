"""A task whose answers a program can judge: sort the digits of a prompt.

A prompt is `length` digits and a mark, the answer the same digits in order. Nobody writes down which answer is right:
the reward is computed from the answer, as it is from a unit test or a number at the end of a proof ("verifiable
rewards"). All that is random is drawn for the global batch of a step, and each rank takes its share. So a run does not
depend on how many ranks there are.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from parallel_lab.model.config import GPTConfig
from parallel_lab.model.gpt import GPT
from parallel_lab.model.reference import build

DTYPE = torch.float64  # another order of sums then changes no sampled token


@dataclass(frozen=True)
class Sorting:
    """Prompts of `length` digits below `digits`.

    Attributes:
        partial: The reward is the share of right places; otherwise 1 for a right answer and 0 for any other.
        warm_steps: Steps of supervised training before, so that some answers are right and there is something to learn.
        width: Of the policy.
    """

    length: int = 3
    digits: int = 6
    partial: bool = False
    warm_steps: int = 40
    width: int = 32

    @property
    def mark(self) -> int:
        """The token after the digits of a prompt."""
        return self.digits

    def prompts(self, count: int, *, seed: int) -> Tensor:
        """(count, length + 1), digits and the mark."""
        drawn = torch.randint(self.digits, (count, self.length), generator=torch.Generator().manual_seed(seed))
        return F.pad(drawn, (0, 1), value=self.mark)

    def noise(self, count: int, *, seed: int) -> Tensor:
        """What sampling needs, (count, length, vocab): Gumbel's noise, of which the largest sum is a sample."""
        uniform = torch.rand(
            count, self.length, self.digits + 1, dtype=DTYPE, generator=torch.Generator().manual_seed(seed)
        )
        return -(-uniform.clamp_min(1e-12).log()).log()

    def reward(self, prompts: Tensor, answers: Tensor) -> Tensor:
        """(count,) in [0, 1], of answers (count, length)."""
        right = (answers == prompts[:, : self.length].sort(-1).values).to(DTYPE)
        return right.mean(-1) if self.partial else right.amin(-1)

    def policy(self, *, seed: int) -> GPT:
        """A small GPT that has read some right answers: it sorts now and then, so there is something to reward."""
        config = GPTConfig(vocab=self.digits + 1, seq=2 * self.length, layers=1, heads=4, width=self.width)
        model = build(config, seed=seed, dtype=DTYPE)
        optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
        for step in range(self.warm_steps):
            prompts = self.prompts(64, seed=10_000 * seed + step)
            tokens = torch.cat([prompts, prompts[:, : self.length].sort(-1).values], -1)
            optimizer.zero_grad()
            (-self.log_probabilities(model, tokens).mean()).backward()
            optimizer.step()
        return model

    def log_probabilities(self, model: GPT, tokens: Tensor) -> Tensor:
        """Of each token of the answers, (count, length), in sequences (count, 2 length + 1)."""
        logits = model(tokens[:, :-1])[:, self.length :]  # (count, length, vocab)
        return logits.log_softmax(-1).gather(-1, tokens[:, self.length + 1 :, None])[..., 0]
