"""Prefill and decode: a GPT that reads a prompt at once and then writes one token at a time, with a cache.

Pope et al. 2023, "Efficiently scaling Transformer inference", section 2. *Prefill* computes all tokens of a prompt side
by side, as training does: large products, limited by arithmetic. *Decode* computes one token of each sequence: it reads
all weights for a few rows, so it is limited by memory. The sequences of a batch share one reading of the weights, and
each reads its own cache.

    replicated             tokens; each rank picks the same next one
    sharded                with a model cut by `tensor_parallel`: the weights, and the cache by key-value heads
    sent per token, rank   with n ranks 2 (n-1)/n S for each of 2 L + 1 sums, S = b h e bytes, and (n-1) 2 b e to pick
    held per rank          1/n of the weights and of the cache, as far as the heads divide

There is no backward pass: no gradients, no optimizer, no activations that are kept.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F

from parallel_lab.agree.arguments import keyword_only
from parallel_lab.collectives.passes import named, next_pass
from parallel_lab.model.gpt import GPT
from parallel_lab.runtime.group import member
from parallel_lab.systems.serving.cache import Cache
from parallel_lab.tensor_parallel.vocab import own_tokens


class _Now(NamedTuple):
    """Where the tokens of the present pass stand."""

    slots: Sequence[int]
    positions: Tensor  # (rows, seq)
    seen: Tensor  # (rows, 1, seq, length): which cached tokens each of them sees
    length: int  # of the longest sequence among them, these tokens included


class Decoder:
    """Reads and writes with `model`, whose attention goes through the cache from now on: train another copy.

    Args:
        model: a GPT, or one that `tensor_parallel` has cut over the ranks of `group`.
        slots: how many sequences it serves at a time.
        longest: the most tokens of one, prompt and answer; by default the model's.
        group: whose ranks share the model; None where one rank has all of it.
    """

    @keyword_only()
    def __init__(
        self, model: GPT, *, slots: int, longest: int | None = None, group: dist.ProcessGroup | None = None
    ) -> None:
        config, block = model.config, model.blocks[0]
        attention: Any = block.attention
        heads = attention.key.weight.shape[0] // config.head_width  # of a cut model: this rank's
        self.model, self.group = model.eval(), group  # dropout is of training
        shape = (config.layers, heads, config.head_width)
        self.cache = Cache(shape, slots=slots, longest=longest or config.seq, like=next(model.parameters()))
        self._now: _Now | None = None
        blocks: Any = model.blocks
        for layer, each in enumerate(blocks):
            each.attention.attend = self._attention(layer)

    def prefill(self, tokens: Tensor, slot: int) -> Tensor:
        """Reads `tokens` (seq,), a prompt or its next piece, into `slot`; the logits (vocab,) after the last one."""
        return self.read(tokens[None], [slot])[0]

    def decode(self, tokens: Tensor, slots: Sequence[int]) -> Tensor:
        """Reads the next token of each of `slots`, (rows,); the logits (rows, vocab) after it."""
        return self.read(tokens[:, None], slots)

    def greedy(self, logits: Tensor) -> Tensor:
        """The most probable token of each row of `logits`, (rows,). Of a cut model, the ranks compare their best."""
        if self.group is None:
            return logits.argmax(-1)
        group = member(self.group)
        wide = torch.promote_types(logits.dtype, torch.float32)  # tokens are whole numbers up to 2^24 in float32
        best = torch.full((len(logits), 2), -torch.inf, dtype=wide, device=logits.device)
        if logits.shape[-1]:  # a rank may have no token of a small vocabulary
            value, place = logits.max(-1)
            best = torch.stack([value.to(wide), place.to(wide) + own_tokens(self.model.config.vocab, group).start], -1)
        candidates = [torch.empty_like(best) for _ in range(group.size())]
        with named(group, "pick"):
            dist.all_gather(candidates, best, group=group)
        values, tokens = torch.stack(candidates).unbind(-1)  # (n, rows) each
        return tokens.gather(0, values.argmax(0, keepdim=True))[0].long()

    @torch.no_grad()
    def read(self, tokens: Tensor, slots: Sequence[int]) -> Tensor:
        """Reads `tokens` (rows, seq), one row a slot, after what the slots hold; the logits (rows, vocab) of the last.

        On a cut model they are those of this rank's tokens of the vocabulary.

        Raises:
            ValueError: there are no tokens, or not as many rows as slots; a slot stands there twice, or is full.
        """
        cache, model = self.cache, self.model
        self._now = self._where(tokens, slots)
        if self.group is not None:
            next_pass(member(self.group))
        x = model.embedding(tokens, self._now.positions)  # (rows, seq, width)
        for block in model.blocks:
            x = block(x, positions=self._now.positions)
        for slot in slots:
            cache.lengths[slot] += tokens.shape[1]
        return model.head(x[:, -1:])[:, 0]  # the vocabulary is as wide as many layers: only where it is wanted

    def _where(self, tokens: Tensor, slots: Sequence[int]) -> _Now:
        if tokens.dim() != 2 or not tokens.numel():
            raise ValueError(f"tokens of shape {tuple(tokens.shape)}: expected (rows, seq), one token or more a row")
        if len(tokens) != len(slots) or len(set(slots)) < len(slots):
            raise ValueError(f"{len(tokens)} rows of tokens for slots {list(slots)}: expected a slot of its own each")
        starts = torch.tensor([self.cache.lengths[slot] for slot in slots], device=tokens.device)
        positions = starts[:, None] + torch.arange(tokens.shape[1], device=tokens.device)  # (rows, seq)
        length = int(positions.max()) + 1
        if length > self.cache.longest:
            raise ValueError(f"a sequence of {length} tokens, where a slot has room for {self.cache.longest}")
        seen = torch.arange(length, device=tokens.device) <= positions[..., None]  # (rows, seq, length)
        return _Now(slots, positions, seen[:, None], length)

    def _attention(self, layer: int):
        def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            now: Any = self._now
            self.cache.write(layer, now.slots, now.positions, key, value)
            keys, values = self.cache.read(layer, now.slots, now.length)
            return F.scaled_dot_product_attention(query, keys, values, attn_mask=now.seen, enable_gqa=True)

        return attend


@keyword_only()
@torch.no_grad()
def sampled(
    decoder: Decoder, prompt: Sequence[int], *, tokens: int, temperature: float = 1.0, seed: int = 0
) -> list[int]:
    """`prompt` and what the model writes after it, `tokens` long, each drawn by its probability.

    A `temperature` below 1 prefers what is probable.

    Raises:
        ValueError: ranks share the model, so none of them has all logits.
    """
    if decoder.group is not None:
        raise ValueError("the model is cut over ranks: expected a decoder without a group")
    device, dice = decoder.cache.numbers.device, torch.Generator().manual_seed(seed)
    written, logits = list(prompt), decoder.prefill(torch.tensor(prompt, device=device), 0)
    for number in range(tokens):
        shares = (logits.double().cpu() / temperature).softmax(-1)
        written.append(int(torch.multinomial(shares, 1, generator=dice)))
        if number + 1 < tokens:
            logits = decoder.decode(torch.tensor(written[-1:], device=device), [0])[0]
    decoder.cache.free(0)
    return written


@keyword_only()
def generate(
    decoder: Decoder, prompts: Sequence[Sequence[int]], *, tokens: int, stop: int | None = None
) -> list[list[int]]:
    """The greedy answers to `prompts`, which are decoded as one batch, slot by slot in their order.

    Args:
        decoder: has at least as many slots, all of them empty.
        prompts: tokens, one list each.
        tokens: the most tokens of an answer.
        stop: a token that ends an answer; it is left out.
    """
    device = decoder.cache.numbers.device
    first = [decoder.greedy(decoder.prefill(torch.tensor(p, device=device), i)[None]) for i, p in enumerate(prompts)]
    answers = [[int(token)] for token in first]
    for _ in range(tokens - 1):
        going = [slot for slot, answer in enumerate(answers) if answer[-1] != stop]
        if not going:
            break
        last = torch.tensor([answers[slot][-1] for slot in going], device=device)
        for slot, token in zip(going, decoder.greedy(decoder.decode(last, going)).tolist(), strict=True):
            answers[slot].append(token)
    for slot in range(len(prompts)):
        decoder.cache.free(slot)
    return [answer[:-1] if answer[-1] == stop else answer for answer in answers]
