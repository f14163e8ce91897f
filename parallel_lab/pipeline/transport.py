"""What crosses the cuts of a pipeline: activations to the next stage, their gradients to the stage before.

A cut has the number of the stage before it. Between two stages of one rank, as at the turn of a V, tensors are handed
over; between ranks each tensor is one message. Nothing ever waits for a send, and receives are posted before the pass
that needs them, so no order of passes that can be carried out at all can deadlock, whatever the size of a message.

A receiver must know shapes and dtypes first. Where those of the microbatches are new (`announce`), a header goes before
each activation and says them, and also which of the tensors want a gradient; later steps send what they compute and
nothing else. Gradients look like the tensors that they are of, so they need no header.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from parallel_lab.pipeline.cut import BACKWARD, FORWARD, Cut
from parallel_lab.runtime.tags import pipeline
from parallel_lab.trace import tag

HEADER = 256  # numbers in a header
DTYPES = tuple(sorted({each for each in vars(torch).values() if isinstance(each, torch.dtype)}, key=str))


class Form(NamedTuple):
    """What is to be known of a tensor before it comes."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    wants_gradient: bool

    @classmethod
    def of(cls, tensor: Tensor) -> "Form":
        """That of `tensor`."""
        return cls(tuple(tensor.shape), tensor.dtype, tensor.requires_grad)

    def __str__(self) -> str:
        gradient = "with" if self.wants_gradient else "without"
        return f"{self.shape} of {str(self.dtype).removeprefix('torch.')}, {gradient} a gradient"


Forms = dict[tuple[int, int], list[Form]]
"""By stage and microbatch, what crosses the cut on the way forward."""


class Transport:
    """The messages of one rank in one step.

    `ranks` has the rank of each stage, and `over` for each message to this rank those of this rank that its sender
    must have taken before it sent that. `forms` is kept from step to step. `first` is how many microbatches there were
    in the steps before, for the trace.
    """

    def __init__(
        self,
        ranks: Sequence[int],
        over: Mapping[Cut, Sequence[Cut]],
        group: dist.ProcessGroup,
        *,
        forms: Forms,
        first: int,
    ) -> None:
        self.ranks, self.over, self.group, self.forms, self.first = ranks, over, group, forms, first
        self.me, self.new = group.rank(), True
        self.here: dict[Cut, list[Tensor]] = {}  # from a stage of this rank
        self.coming: dict[Cut, list[tuple[dist.Work | None, Tensor]]] = {}
        self.leaving: dict[Cut, list[dist.Work]] = defaultdict(list)

    def peer(self, cut: Cut, sends: bool) -> int:
        """The rank at the other end of a cut."""
        return self.ranks[cut.stage + (sends == (cut.way == FORWARD))]

    def put(self, cut: Cut, tensors: Sequence[Tensor]) -> None:
        """Hands tensors on. They are not to be changed until the step is over."""
        if self.peer(cut, True) == self.me:
            self.here[cut] = list(tensors)
            return
        if cut.way == FORWARD:
            self._tell(cut, [Form.of(tensor) for tensor in tensors])
        self.leaving[cut] += [
            self._send(cut, number, tensor.detach().contiguous())
            for number, tensor in enumerate(tensors)
            if tensor.numel()
        ]

    def post(self, cut: Cut, device: torch.device) -> None:
        """Opens the way for what will come, once; nothing waits."""
        if self.peer(cut, False) == self.me or cut in self.coming:
            return
        if self.new and cut.way == FORWARD:
            header = torch.empty(HEADER, dtype=torch.int64, device="cpu")
            self.coming[cut] = [(self._receive(cut, 0, header, "header"), header)]
        elif (cut.stage, cut.mb) in self.forms:  # of a gradient not, if what it is of has not been computed yet
            self._open(cut, device)

    def take(self, cut: Cut, device: torch.device) -> list[Tensor]:
        """What has come, once it is there; activations that want a gradient say so."""
        if cut in self.here:
            return self.here.pop(cut)
        self.post(cut, device)
        if self.new and cut.way == FORWARD:
            ((work, header),) = self.coming.pop(cut)
            assert work is not None
            work.wait()
            self.forms[cut.stage, cut.mb] = _read(header.tolist())
            self._open(cut, device)
        coming = self.coming.pop(cut)
        for work, _ in coming:
            if work is not None:
                work.wait()
        for sent in self.over.get(cut, ()):
            self._finish(sent)
        return [tensor for _, tensor in coming]

    def close(self) -> None:
        """Waits for all that still leaves."""
        for cut in list(self.leaving):
            self._finish(cut)

    def _finish(self, cut: Cut) -> None:
        for work in self.leaving.pop(cut, ()):
            work.wait()

    def _open(self, cut: Cut, device: torch.device) -> None:
        """Posts the receives for tensors whose forms are known."""
        forms, forward = self.forms[cut.stage, cut.mb], cut.way == FORWARD
        self.coming[cut] = []
        for number, form in enumerate(form for form in forms if forward or form.wants_gradient):
            tensor = torch.empty(form.shape, dtype=form.dtype, device=device)
            work = self._receive(cut, number, tensor) if tensor.numel() else None
            self.coming[cut].append((work, tensor.requires_grad_(forward and form.wants_gradient)))

    def _tell(self, cut: Cut, forms: list[Form]) -> None:
        """Sends the header, or makes sure that it is still true."""
        known = self.forms.get((cut.stage, cut.mb))
        if self.new:
            self.forms[cut.stage, cut.mb] = forms
            header = torch.tensor(_written(forms, cut.stage), device="cpu")
            self.leaving[cut].append(self._send(cut, 0, header, "header"))
        elif forms != known:
            was, now = (", ".join(map(str, each)) for each in (known or [], forms))
            raise ValueError(
                f"rank {self.me}: stage {cut.stage} returned {now} for microbatch {cut.mb}, and the next stage expects"
                f" {was} as in the step before, from inputs of the same shapes. If it is meant to change, call"
                " pipeline.forget(module) with the module of stage 0 before the step, and all ranks hear of it."
            )

    def _send(self, cut: Cut, number: int, tensor: Tensor, phase: str = "") -> dist.Work:
        with self._named(cut, number, phase):
            return self.group.send([tensor], self.peer(cut, True), self._tag(cut))

    def _receive(self, cut: Cut, number: int, tensor: Tensor, phase: str = "") -> dist.Work:
        with self._named(cut, number, phase):
            return self.group.recv([tensor], self.peer(cut, False), self._tag(cut))

    def _named(self, cut: Cut, number: int, phase: str):
        return tag(part=cut.stage, mb=self.first + cut.mb, phase=phase or cut.way, round=number)

    def _tag(self, cut: Cut) -> int:
        return pipeline(1 + (2 * cut.mb + (cut.way == BACKWARD)) * len(self.ranks) + cut.stage)

    def announce(self, new: bool) -> bool:
        """Whether the shapes of this step are new, which the rank of stage 0 knows; each rank tells the next one."""
        mine = min(stage for stage, rank in enumerate(self.ranks) if rank == self.me)
        word = torch.tensor([new], dtype=torch.uint8, device="cpu")
        if mine:
            with tag(part=mine - 1, mb=self.first, phase="setup"):
                self.group.recv([word], self.ranks[mine - 1], pipeline(0)).wait()
        self.new = bool(word.item())
        if self.new:
            self.forms.clear()
        for stage in [s for s, rank in enumerate(self.ranks[:-1]) if rank == self.me]:
            if self.ranks.index(self.ranks[stage + 1]) == stage + 1:  # the first stage of that rank
                with tag(part=stage, mb=self.first, phase="setup"):
                    self.leaving[Cut("setup", stage, 0)].append(
                        self.group.send([word], self.ranks[stage + 1], pipeline(0))
                    )
        return self.new


def _written(forms: Sequence[Form], stage: int) -> list[int]:
    """A header: how many tensors, and of each dtype, whether it wants a gradient, dimensions, shape."""
    numbers = [len(forms)]
    for shape, dtype, wants in forms:
        numbers += [DTYPES.index(dtype), wants, len(shape), *shape]
    if len(numbers) > HEADER:
        raise ValueError(
            f"stage {stage} returned {len(forms)} tensors, more than a header can tell: stack some of them"
        )
    return numbers + [0] * (HEADER - len(numbers))


def _read(numbers: list[int]) -> list[Form]:
    """The forms that a header tells of."""
    count, *rest = numbers
    forms = []
    for _ in range(count):
        dtype, wants, dims, *rest = rest
        forms.append(Form(tuple(rest[:dims]), DTYPES[dtype], bool(wants)))
        rest = rest[dims:]
    return forms
