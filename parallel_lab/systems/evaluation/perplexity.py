"""Perplexity and bits per byte over ranks that hold different numbers of tokens.

Perplexity is exp of the mean negative log-likelihood of a *token*, over all tokens:

    perplexity = exp(sum nats / sum tokens)        bits per byte = sum nats / (ln 2 * sum bytes)

What adds up over ranks is (nats, tokens, bytes), 24 bytes, one all-reduce: 48 (n-1)/n bytes a rank. The mean of ranks'
losses weights a token on a short rank more; the mean of their perplexities is never below exp of it: exp is convex.

Perplexity depends on what a token is: a model with longer tokens has fewer of them for the same text, and a higher
perplexity for the same likelihood. Bits per byte divide by what all tokenizers share, so they can be compared.

The gradient has the same trap. DDP divides the sum of gradients by n, so a rank whose loss is a mean over its t_r
tokens scales it by n t_r / sum t before backward: then the average is the gradient of the mean over all tokens.
"""

from math import exp, log
from typing import NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from parallel_lab.model.weighted import IGNORED
from parallel_lab.systems.evaluation import exchange


class Likelihood(NamedTuple):
    """How well some text was predicted; the sums of two texts are those of both."""

    nats: float  # the sum of -ln Pr[token]
    tokens: int
    bytes: int = 0  # of the text that these tokens stand for, in UTF-8; 0 where nobody counted them


def likelihood(logits: Tensor, targets: Tensor, text_bytes: int = 0, ignored: int = IGNORED) -> Likelihood:
    """That of this rank's tokens: logits (..., vocabulary), targets (...); targets that are `ignored` do not count.

    The sum is in float64. A rank without tokens has zeros.
    """
    flat, wanted = logits.detach().flatten(0, -2).double(), targets.flatten()
    nats = F.cross_entropy(flat, wanted, ignore_index=ignored, reduction="sum")
    return Likelihood(float(nats), int((wanted != ignored).sum()), text_bytes)


def merge(mine: Likelihood, group: dist.ProcessGroup | None = None, device: torch.device | str = "cpu") -> Likelihood:
    """The sums over all ranks. The counts travel as float64, which has each whole number up to 2^53."""
    nats, tokens, text_bytes = exchange.merge(torch.tensor(mine, dtype=torch.float64, device=device), group).tolist()
    return Likelihood(nats, int(tokens), int(text_bytes))


def mean_loss(found: Likelihood) -> float:
    """Nats per token.

    Raises:
        ValueError: there are no tokens.
    """
    if not found.tokens:
        raise ValueError("no rank has a token that counts: there is no mean loss; check the shards and the padding")
    return found.nats / found.tokens


def perplexity(found: Likelihood) -> float:
    """exp of the mean loss: of so many equally likely tokens the model seems to choose.

    Raises:
        ValueError: there are no tokens.
    """
    return exp(mean_loss(found))


def bits_per_byte(found: Likelihood) -> float:
    """Bits for each byte of the text, which compares models with different tokenizers.

    Raises:
        ValueError: nobody counted the bytes.
    """
    if not found.bytes:
        raise ValueError("bits per byte need the bytes of the text: pass text_bytes=len(text.encode()) to likelihood")
    return found.nats / (log(2) * found.bytes)


def loss_scale(tokens: int, group: dist.ProcessGroup | None = None, device: torch.device | str = "cpu") -> float:
    """What a rank multiplies its mean loss by, so that DDP's average is the gradient of the mean over all tokens.

    It is n t_r / sum t, from one all-reduce of 8 bytes, which has to come before the backward. 0 for a rank without
    tokens, whose loss must then be 0 and not NaN.

    Raises:
        ValueError: no rank has a token.
    """
    group = exchange.member(group)
    total = int(exchange.merge(torch.tensor([tokens], device=device), group))
    if not total:
        raise ValueError("no rank has a token that counts in this step: skip it on every rank")
    return group.size() * tokens / total
