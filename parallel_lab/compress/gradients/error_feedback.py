"""Error feedback: what compression left out of a gradient is added to the next one.

Seide et al. 2014, "1-Bit Stochastic Gradient Descent and its Application to Data-Parallel Distributed Training of
Speech DNNs"; Karimireddy et al. 2019, "Error Feedback Fixes SignSGD and other Gradient Compression Schemes", algorithm
2 (EF-SGD). With g the gradient of a rank:

    due = g + residual         what should be sent
    sent = compressed(due)     what is sent; the mean of it over the ranks is the step
    residual = due - sent      what is still owed, and stays on this rank

Nothing is lost, it is only late: the sum of all steps sent differs from that of all gradients by the residual alone. A
compressor that throws away the same direction again and again, as signs and the largest elements do, then converges.
(The paper multiplies g by the learning rate first. A hook does not see it, so here the residual is in units of a
gradient: a changed learning rate also counts for what is still owed.)

    replicated             nothing more than DDP has
    held per rank          a residual per element, in float32 at least; nobody else has it, so a checkpoint needs all
    sent per rank and step what the compressor says, see `sent_bytes` of each

`Compressed` is a hook of DDP. A subclass says in `exchange` what is sent, and yields at each wait.
"""

from collections.abc import Generator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import torch
import torch.distributed as dist
from torch import Tensor

from parallel_lab.agree.problem import agree
from parallel_lab.compress.gradients.wire import Sizes
from parallel_lab.trace import recorder, tag


class Bucket(Protocol):
    """What a hook is given: the gradients of some parameters, end to end in one vector."""

    @property
    def index(self) -> int:
        """Its place in the order in which buckets are sent."""
        ...

    @property
    def names(self) -> Sequence[str]:
        """Of its parameters."""
        ...

    @property
    def parameters(self) -> Sequence[Tensor]:
        """Whose gradients these are."""
        ...

    @property
    def flat(self) -> Tensor:
        """Their gradients (elements,)."""
        ...


class Result(NamedTuple):
    """What an exchange has brought."""

    mean: Tensor  # over the ranks, of what each has sent (elements,)
    rest: Tensor | None = None  # what this rank has not sent (elements,); None without error feedback
    kept: Mapping[str, Tensor] = {}  # what the compressor wants to find in `kept` at the next step


Exchange = Generator[Any, None, Result]


class Residuals:
    """What this rank still owes, by the name of the parameter, so that buckets may be cut anew."""

    def __init__(self) -> None:
        self.held: dict[str, tuple[Tensor, Tensor]] = {}  # the vector of its bucket, and its own part of that

    def take(self, bucket: Bucket, dtype: torch.dtype) -> Tensor:
        """The residual of a bucket (elements,), zeros at first."""
        vectors = [self.held[name][0] for name in bucket.names if name in self.held]
        same = len(vectors) == len(bucket.names) and all(each is vectors[0] for each in vectors)
        if same and vectors[0].shape == bucket.flat.shape:  # the bucket is that of the last step
            return vectors[0]
        parts = [
            self.held[name][1].to(bucket.flat.device) if name in self.held else torch.zeros_like(p, dtype=dtype)
            for name, p in zip(bucket.names, bucket.parameters, strict=True)
        ]
        return torch.cat([part.reshape(-1) for part in parts])

    def keep(self, bucket: Bucket, vector: Tensor) -> None:
        """Holds `vector` (elements,) for the next step."""
        sizes = [parameter.numel() for parameter in bucket.parameters]
        for name, part, p in zip(bucket.names, vector.split(sizes), bucket.parameters, strict=True):
            self.held[name] = vector, part.view(p.shape)


class Compressed:
    """A hook of DDP that sends less than the gradients. Make a new one for each DDP: it holds what this rank owes.

    Where a gradient of some rank is NaN or infinite, residuals stay as they were: that step is refused or skipped.
    """

    takes_bucket = True  # DDP hands over the bucket and not only its vector

    def __init__(self, *, error_feedback: bool = True, seed: int = 0) -> None:
        self.error_feedback, self.seed, self.step = error_feedback, seed, 0
        self.residuals = Residuals()
        self.kept: dict[str, Tensor] = {}  # what else a compressor takes from one step to the next
        self._under_way: list[Exchanging] = []

    def exchange(self, group: dist.ProcessGroup, vector: Tensor, bucket: Bucket) -> Exchange:
        """Compresses `vector` (elements,), which may be changed, sends it, and yields each handle to be waited for."""
        raise NotImplementedError

    def sent_bytes(self, elements: Sizes, n: int, item_bytes: int = 4) -> float:
        """The bytes that each of n ranks sends for a bucket of `elements`, or of parameters of these shapes."""
        raise NotImplementedError

    @torch.no_grad()
    def __call__(self, group: dist.ProcessGroup, bucket: Bucket) -> "Exchanging":
        """Starts the exchange of a full bucket; after `wait()`, the mean of what ranks sent stands in it."""
        self.step += bucket.index == 0
        return Exchanging(self._steps(group, bucket), self._under_way)

    def _steps(self, group: dist.ProcessGroup, bucket: Bucket) -> Generator[Any, None, None]:
        """Error feedback: due = g + residual, sent = compressed(due) over the ranks, then residual = due - sent."""
        wide = torch.promote_types(bucket.flat.dtype, torch.float32)
        vector = bucket.flat.to(wide)
        if self.error_feedback:
            vector = vector + self.residuals.take(bucket, wide)
        result = yield from self.exchange(group, vector, bucket)
        if result.mean.data_ptr() != bucket.flat.data_ptr():
            bucket.flat.copy_(result.mean)
        if (result.rest is not None or result.kept) and bucket.flat[0].isfinite():
            self.kept |= result.kept
            if result.rest is not None:
                self.residuals.keep(bucket, result.rest)

    def generator(self, bucket: Bucket, rank: int = 0) -> torch.Generator:
        """Chance for this step and bucket, the same on all ranks, or of one rank; a resumed run draws the same."""
        mixed = 0
        for number in (self.seed, self.step, bucket.index, rank):
            mixed = (mixed * 1_000_003 + number) % 2**63
        return torch.Generator(bucket.flat.device).manual_seed(mixed)

    def state_dict(self) -> dict[str, Any]:
        """What this rank needs to go on as if it had never stopped; every rank has another, so save all."""
        residuals = {name: part.clone() for name, (_, part) in self.residuals.held.items()}
        return {"step": self.step, "residuals": residuals, "kept": {k: t.clone() for k, t in self.kept.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes over what `state_dict()` gave on this rank."""
        self.step = state["step"]
        self.residuals.held = {name: (part, part) for name, part in state["residuals"].items()}
        self.kept = dict(state["kept"])


class Exchanging:
    """A handle: one bucket's exchange, which may need several collectives, one after another."""

    def __init__(self, steps: Generator[Any, None, None], under_way: list["Exchanging"]) -> None:
        self.steps, self.under_way = steps, under_way
        self.names, self.round = recorder().names, 0  # what DDP calls this bucket in a trace
        self.work: Any = next(steps)
        under_way.append(self)

    @torch.no_grad()
    def advance(self) -> None:
        """Waits for the collective under way, and starts the next."""
        self.work.wait()
        self.round += 1
        with tag(**{**self.names, "round": self.round}):
            self.work = next(self.steps, None)
        if self.work is None:
            self.under_way.remove(self)

    def wait(self) -> None:
        """Takes all buckets on by one collective at a time, until this one is over: all ranks in the same order."""
        while self in self.under_way:
            for each in list(self.under_way):
                each.advance()


def state_of(ddp: Any) -> dict[str, Any]:
    """What a checkpoint has to hold of this rank's hook: its state, and in which order its buckets were cut."""
    order = [name for bucket in ddp.buckets for name in bucket.names]
    place = {"rank": ddp.group.rank(), "ranks": ddp.group.size()}
    return {**place, "order": order, "hook": ddp.hook.state_dict()}


def load_state(ddp: Any, state: Mapping[str, Any]) -> None:
    """Gives a new DDP of the same model, hook and `bucket_bytes` what `state_of` gave on this rank.

    Raises:
        ValueError: the state is of another rank, of another number of ranks, or of other parameters.
    """
    rank, n = ddp.group.rank(), ddp.group.size()
    named = {name: p for bucket in ddp.buckets for name, p in zip(bucket.names, bucket.parameters, strict=True)}
    problem = None
    if (state["rank"], state["ranks"]) != (rank, n):
        saved = f"rank {state['rank']} of {state['ranks']}"
        text = f"rank {rank} of {n}: this state is that of {saved}: what a rank owes is its own"
        problem = ValueError(f"{text}. Load each rank's own, or begin with a new hook and owe nothing")
    elif named.keys() != set(state["order"]):
        other = sorted(named.keys() ^ set(state["order"]))[0]
        problem = ValueError(f"rank {rank}: {other!r} is trained here or in the state, and not in both: same model?")
    agree(problem, ddp.group, ddp.buckets[0].flat.device)
    ddp.cut([(name, named[name]) for name in state["order"]])
    ddp.hook.load_state_dict(state["hook"])
