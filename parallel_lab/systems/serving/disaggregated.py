"""Prefill on some ranks, decode on others, and the cache sent between them.

Zhong et al. 2024, "DistServe: disaggregating prefill and decoding for goodput-optimized large language model serving";
Patel et al. 2024, "Splitwise: efficient generative LLM inference using phase splitting". A prompt that is read where
others decode makes them wait. Here the first `prefill` ranks of the group read prompts and send keys, values and the
first token on; the others decode, and no prompt comes between two of their steps. The two kinds of ranks can have other
hardware, other batches and another cut of the model.

    replicated             the weights: each rank has the whole model
    sent per request       2 L h_kv s e bytes for a prompt of s tokens, once, and the first token
    held per rank          the weights; a decode rank holds caches, a prefill rank those that it sent

Request i is read by rank i mod `prefill` and decoded by rank `prefill` + i mod the others. A decode rank takes its
requests in order, as its slots become free, and looks for the next between two steps without waiting for it.
"""

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from parallel_lab.agree.arguments import keyword_only
from parallel_lab.model.gpt import GPT
from parallel_lab.runtime.group import member
from parallel_lab.runtime.rank.waiting import on_a_thread
from parallel_lab.systems.serving.batching import Greedy, Request
from parallel_lab.systems.serving.decoder import Decoder
from parallel_lab.trace import span, tag


@keyword_only()
def serve_apart(
    model: GPT, requests: Sequence[Request], *, prefill: int, slots: int, group: dist.ProcessGroup | None = None
) -> dict[int, list[int]]:
    """The greedy answers, by the number of the request: on a decode rank its own, on a prefill rank none.

    Args:
        model: the same on every rank.
        requests: the same on every rank.
        prefill: how many ranks read prompts; the others decode.
        slots: how many sequences a decode rank serves at a time.
        group: by default all ranks.

    Raises:
        ValueError: there is no rank left for one of the two.
    """
    group = member(group)
    n, rank = group.size(), group.rank()
    if not 1 <= prefill < n:
        raise ValueError(f"{prefill} of {n} ranks for prefill: expected at least one rank for each of the two")
    mine = [(number, each, number % prefill, prefill + number % (n - prefill)) for number, each in enumerate(requests)]
    if rank < prefill:
        _read(model, [each for each in mine if each[2] == rank], group)
        return {}
    return _Decoding(model, [each for each in mine if each[3] == rank], slots, group).run()


Routed = tuple[int, Request, int, int]  # its number, the request, who reads it, who decodes it


def _read(model: GPT, mine: list[Routed], group: dist.ProcessGroup) -> None:
    """Reads prompt after prompt; a cache is sent on while the next is being read."""
    engine = Greedy(Decoder(model, slots=1))
    sent = []
    for number, request, _, to in mine:
        with span("prefill", part=number):
            token = engine.prefill(request.prompt, 0)
        cache = engine.decoder.cache.sequence(0)
        engine.free(0)
        first = torch.tensor([token])
        with tag(part=number, phase="cache"):
            sent += [dist.isend(each, group=group, group_dst=to) for each in (first, cache)]
    for work in sent:
        work.wait()


class _Decoding:
    """A rank that decodes: the sequences in its slots, and the next one on its way."""

    def __init__(self, model: GPT, mine: list[Routed], slots: int, group: dist.ProcessGroup) -> None:
        self.engine, self.group = Greedy(Decoder(model, slots=slots)), group
        self.waiting, self.active = deque(mine), {}
        self.free, self.answers = deque(range(slots)), {}

    def run(self) -> dict[int, list[int]]:
        """Decodes until every request of this rank is answered."""
        coming = self._expect()
        while coming or self.active:
            # With nothing else to do it waits; otherwise it looks, and goes on decoding.
            if coming and self.free and (not self.active or coming[2].done()):
                self._take(*coming)
                coming = self._expect()
            self._step()
        return self.answers

    def _expect(self) -> tuple[Routed, tuple[Tensor, Tensor], Future] | None:
        """Asks for the next cache; its length is known from the prompt."""
        if not self.waiting:
            return None
        number, request, source, _ = next_one = self.waiting.popleft()
        numbers = self.engine.decoder.cache.numbers
        layers, both, _, heads, _, width = numbers.shape
        first = torch.empty(1, dtype=torch.int64)
        cache = numbers.new_empty(layers, both, heads, len(request.prompt), width)
        with tag(part=number, phase="cache"):
            works: list[Any] = [dist.irecv(each, group=self.group, group_src=source) for each in (first, cache)]
        # gloo's handle does not tell that a message has come; a thread that waits for it does.
        arrived = on_a_thread(Future(), lambda: [work.wait() for work in works])
        return next_one, (first, cache), arrived

    def _take(self, routed: Routed, received: tuple[Tensor, Tensor], arrived: Future) -> None:
        arrived.result()
        first, cache = received
        slot = self.free.popleft()
        self.engine.decoder.cache.put(slot, cache)
        self.active[slot] = (*routed[:2], [int(first)])
        self._end(slot)

    def _step(self) -> None:
        if not self.active:
            return
        slots = list(self.active)
        with span("decode"):
            tokens = self.engine.decode([self.active[slot][2][-1] for slot in slots], slots)
        for slot, token in zip(slots, tokens, strict=True):
            self.active[slot][2].append(token)
            self._end(slot)

    def _end(self, slot: int) -> None:
        number, request, written = self.active[slot]
        if len(written) == request.new_tokens:
            self.answers[number] = written
            self.engine.free(slot)
            self.free.append(slot)
            del self.active[slot]
