"""A small language model of bytes, trained in a second, for what is measured about data: repetition, contamination.

The text is the course's, cut into blocks of 1,024 bytes that a seed shuffles: the file is in alphabetical order, and
its two ends differ. Blocks of one topic may stand on both sides, so held-out text is closer to what was trained on than
a new document would be (`systems.data.split` measures that leak).

All losses are bits per byte. The learning rate rises over 20 steps and falls to 0 in a line.
"""

import math

import torch
from torch import Tensor

from parallel_lab.model.data import text, text_batches
from parallel_lab.model.gpt import GPT, GPTConfig, loss

BLOCK_BYTES = 1024
STEPS, BATCH, SEQ = 192, 32, 16
BYTES = STEPS * BATCH * SEQ  # what a run reads
LEARNING_RATE = 5e-3
WARMUP_STEPS = 20


def shuffled_text(seed: int) -> Tensor:
    """All training text of the course, its blocks in an order that `seed` decides."""
    whole = text()
    blocks = whole[: len(whole) // BLOCK_BYTES * BLOCK_BYTES].view(-1, BLOCK_BYTES)
    return blocks[torch.randperm(len(blocks), generator=torch.Generator().manual_seed(seed))].reshape(-1)


def train(data: Tensor, *, seed: int, steps: int = STEPS, dropout: float = 0.0, weight_decay: float = 0.0) -> GPT:
    """A byte GPT of one block, after `steps` batches of windows drawn from `data`."""
    torch.manual_seed(seed)
    model = GPT(GPTConfig(width=32, layers=1, heads=4, seq=SEQ, dropout=dropout))
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=weight_decay)
    for step, (tokens, targets) in enumerate(text_batches(SEQ, BATCH, steps, seed=seed, data=data)):
        optimizer.param_groups[0]["lr"] = LEARNING_RATE * min(1, (step + 1) / WARMUP_STEPS) * (1 - step / steps)
        optimizer.zero_grad()
        loss(model(tokens), targets).backward()
        optimizer.step()
    return model.eval()


@torch.no_grad()
def bits_per_byte(model: GPT, data: Tensor, most: int = 512) -> float:
    """The mean over the bytes of at most `most` windows, evenly spaced in `data`, each read by itself."""
    windows = min(most, (len(data) - 1) // SEQ)
    starts = torch.linspace(0, len(data) - SEQ - 1, windows).long()
    tokens = data[starts[:, None] + torch.arange(SEQ + 1)].long()
    return loss(model(tokens[:, :-1]), tokens[:, 1:]).item() / math.log(2)
