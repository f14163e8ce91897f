"""The models and requests of these tests, and what one process without a cache answers."""

import torch

from parallel_lab.model import GPT, GPTConfig, build
from parallel_lab.systems.serving import Request

PLAIN = GPTConfig(vocab=61, seq=40, layers=2, heads=12, width=48, tied=False)
LLAMA = GPTConfig(
    vocab=61,
    seq=40,
    layers=2,
    heads=4,
    kv_heads=2,
    width=32,
    positions="rotary",
    gated=True,
    norm="rms",
    bias=False,
    tied=False,
)


def model(config: GPTConfig, seed: int = 3) -> GPT:
    """In float64, so that another order of sums changes no answer; with larger weights than training begins with."""
    made = build(config, seed=seed, dtype=torch.float64)
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.dim() > 1:
                parameter *= 12
    return made.eval()


def prompts(config: GPTConfig, count: int = 5) -> list[list[int]]:
    """Of different lengths: 3, 8, 5, 10, 7, ... tokens."""
    draw = torch.Generator().manual_seed(1)
    lengths = [3 + (5 * i) % 9 for i in range(count)]
    return [torch.randint(config.vocab, (length,), generator=draw).tolist() for length in lengths]


def requests(config: GPTConfig, count: int = 5) -> list[Request]:
    """With 2, 9, 4, 11, 6, ... tokens to write."""
    return [Request(prompt, 2 + (7 * i) % 12) for i, prompt in enumerate(prompts(config, count))]


@torch.no_grad()
def recomputed(whole: GPT, prompt, tokens: int) -> list[int]:
    """The greedy answer, with the whole sequence computed again for each token."""
    sequence = list(prompt)
    for _ in range(tokens):
        sequence.append(int(whole(torch.tensor([sequence]))[0, -1].argmax()))
    return sequence[len(prompt) :]
