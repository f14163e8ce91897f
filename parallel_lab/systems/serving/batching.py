"""Which sequences are decoded together: batches that stand, and batches whose slots are filled again at once.

Yu et al. 2022, "Orca: a distributed serving system for Transformer-based generative models", section 3.2 (scheduling by
iteration). In a *static* batch all sequences begin together, and the slots of those that have ended stay empty until
the longest has ended. With *continuous* batching a slot takes the next request at the iteration after its sequence
ended. A prompt is read between two iterations of decoding, and those who decode wait meanwhile. Agrawal et al. 2024,
"Taming throughput-latency tradeoff in LLM inference with Sarathi-Serve", cut prompts into chunks, so that no wait is
long.

One loop, `serve`, drives a `Decoder` on real tokens and `Counted`, which computes nothing; `Log` counts iterations.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import torch

from parallel_lab.agree.arguments import keyword_only, whole
from parallel_lab.systems.serving.decoder import Decoder


class Request(NamedTuple):
    """A prompt and how many tokens are to be written; `arrives` is an iteration."""

    prompt: Sequence[int]
    new_tokens: int
    arrives: int = 0


class Iteration(NamedTuple):
    """What happened between two moments at which the batch can change."""

    prompt_tokens: int  # read by prefill
    decoded: int  # sequences that got a token by decoding


@dataclass
class Log:
    """What serving came to, in iterations: on a model and on none they are the same."""

    slots: int
    iterations: list[Iteration] = field(default_factory=list)
    tokens: dict[int, list[int]] = field(default_factory=dict)  # by the number of the request
    first: dict[int, int] = field(default_factory=dict)  # the iteration of its first token
    last: dict[int, int] = field(default_factory=dict)  # of its last one

    @property
    def decoding(self) -> int:
        """Iterations in which something was decoded: so many times the weights were read for it."""
        return sum(each.decoded > 0 for each in self.iterations)

    @property
    def used(self) -> float:
        """The share of slots that got a token, over the iterations that decoded."""
        return sum(each.decoded for each in self.iterations) / (self.slots * max(1, self.decoding))

    @property
    def stall(self) -> int:
        """The most prompt tokens that were read while sequences waited for their next token."""
        return max((each.prompt_tokens for each in self.iterations if each.decoded), default=0)


class Engine(Protocol):
    """What `serve` drives."""

    def prefill(self, prompt: Sequence[int], slot: int) -> int:
        """Reads a prompt or its next piece, and returns the token after it."""
        ...

    def decode(self, tokens: Sequence[int], slots: Sequence[int]) -> list[int]:
        """Reads a token of each slot, and returns the next ones."""
        ...

    def free(self, slot: int) -> None:
        """The sequence of the slot has ended."""
        ...


class Counted:
    """An engine without a model: every token is 0."""

    def prefill(self, prompt: Sequence[int], slot: int) -> int:
        """0."""
        return 0

    def decode(self, tokens: Sequence[int], slots: Sequence[int]) -> list[int]:
        """Zeros."""
        return [0] * len(slots)

    def free(self, slot: int) -> None:
        """Nothing to do."""


class Greedy:
    """An engine that writes the most probable tokens of a `Decoder`."""

    def __init__(self, decoder: Decoder) -> None:
        self.decoder, self.device = decoder, decoder.cache.numbers.device

    def prefill(self, prompt: Sequence[int], slot: int) -> int:
        """The most probable token after the prompt."""
        return int(self.decoder.greedy(self.decoder.prefill(torch.tensor(prompt, device=self.device), slot)[None]))

    def decode(self, tokens: Sequence[int], slots: Sequence[int]) -> list[int]:
        """The most probable token of each slot."""
        return self.decoder.greedy(self.decoder.decode(torch.tensor(tokens, device=self.device), slots)).tolist()

    def free(self, slot: int) -> None:
        """Empties the slot."""
        self.decoder.cache.free(slot)


@dataclass
class _Sequence:
    """One request in its slot."""

    number: int
    request: Request
    read: int = 0  # of its prompt
    written: list[int] = field(default_factory=list)

    @property
    def ended(self) -> bool:
        return len(self.written) == self.request.new_tokens


@keyword_only()
def serve(
    engine: Engine, requests: Sequence[Request], *, slots: int, continuous: bool = True, chunk: int | None = None
) -> Log:
    """Serves `requests` in their order, and says what each iteration did.

    Args:
        engine: `Greedy(decoder)`, or `Counted()`.
        requests: in the order of their arrival.
        slots: how many sequences are served at a time.
        continuous: fill a slot as soon as it is free; otherwise only when all are.
        chunk: the most prompt tokens that are read in an iteration, by default whole prompts of all who begin.

    Raises:
        ValueError: `slots` or `chunk` is below 1, or a request has no prompt or wants no token.
    """
    whole("slots", slots)
    if chunk is not None:
        whole("chunk", chunk)
    if empty := [number for number, each in enumerate(requests) if not each.prompt or each.new_tokens < 1]:
        raise ValueError(f"request {empty[0]}: expected a prompt of a token or more, and at least one token to write")
    waiting, log = deque(enumerate(requests)), Log(slots)
    active: dict[int, _Sequence] = {}
    while waiting or active:
        now = len(log.iterations)
        if continuous or not active:
            _admit(waiting, active, slots, now)
        ready = {slot: each for slot, each in active.items() if each.written}
        read = _prefill(engine, active, chunk)
        _decode(engine, ready)
        log.iterations.append(Iteration(read, len(ready)))
        for slot, each in list(active.items()):
            if each.written:
                log.first.setdefault(each.number, now)
            if each.ended:
                log.tokens[each.number], log.last[each.number] = each.written, now
                engine.free(slot)
                del active[slot]
    return log


def _admit(waiting: deque, active: dict[int, _Sequence], slots: int, now: int) -> None:
    """Gives the free slots to those who have arrived."""
    for slot in range(slots):
        if slot not in active and waiting and waiting[0][1].arrives <= now:
            active[slot] = _Sequence(*waiting.popleft())


def _prefill(engine: Engine, active: dict[int, _Sequence], chunk: int | None) -> int:
    """Reads what is left of the prompts, at most `chunk` tokens in all; returns how many."""
    left = sum(len(each.request.prompt) for each in active.values()) if chunk is None else chunk
    read = 0
    for slot, each in sorted(active.items(), key=lambda item: item[1].number):
        piece = each.request.prompt[each.read : each.read + left - read]
        if len(piece):
            token = engine.prefill(piece, slot)
            each.read, read = each.read + len(piece), read + len(piece)
            if each.read == len(each.request.prompt):
                each.written.append(token)
    return read


def _decode(engine: Engine, ready: dict[int, _Sequence]) -> None:
    """One token for each sequence that had its first one before this iteration."""
    if ready:
        last = [each.written[-1] for each in ready.values()]
        for each, token in zip(ready.values(), engine.decode(last, list(ready)), strict=True):
            each.written.append(token)
