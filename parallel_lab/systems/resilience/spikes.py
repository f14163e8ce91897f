"""A loss spike, traced to its cause: the data, the optimizer, or the hardware.

The loss of one step is far outside those before it. Guessing is easy; replaying decides. From the checkpoint before the
spike, in this order:

    1  the same batches again      other losses than recorded: not reproducible, so it was the *hardware*, once
    2  each share on every rank    a rank that gets other bits than the others for the same share: *hardware*, always
    3  other batches               the spike comes again: it is in the state, so look at the *optimizer*
    4  another checkpoint          the spike comes again with the same batches: it is in the *data*
    5  neither 3 nor 4             this batch at this state: skip it, and write it down

Beside it stand what was recorded: the checksums of the replicas, the gradient norm of each layer, and the size of
Adam's update. Step 1 needs a run that is deterministic bit by bit: then a difference has no other cause.

What the procedure cannot do. A flip that was spread before the checkpoint was saved is in the checkpoint: it replays
like a bad state. A card that errs once a day passes step 2. And 5 happens: PaLM's spikes did not come again when the
same batches were trained on from another checkpoint (Chowdhery et al. 2022, section 5.1).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

import torch.distributed as dist
from torch import Tensor

from parallel_lab import model as models
from parallel_lab.runtime import launch
from parallel_lab.systems.resilience.corruption import Replicas, compare_replicas, flip, held_by, is_outlier
from parallel_lab.systems.resilience.small_job import INPUT, RATE, WEIGHT, Damage, SmallJob, Step, largest, no_damage
from parallel_lab.trace.units import table

AT, EVERY, CULPRIT = 63, 10, 2  # the step that goes wrong, the steps from one checkpoint to the next, the rank
EXPONENT_BIT = 30  # of a number below 1 it is not set: set, it multiplies by 2^128
ELSEWHERE = 10_000  # batches that the run never saw
CAUSES = ("data", "learning rate", "second moment", "hardware once", "hardware always", "replica")


@dataclass(frozen=True)
class Spike:
    """What the procedure found. Its text is the protocol.

    Attributes:
        step: the first step whose loss is an outlier; -1 where there is none.
        cause: `data`, `optimizer`, `hardware`, `both`, or `none`.
        rank: whose hardware it is; -1 where no rank can be named.
        sentence: the finding in words.
        tests: by name what each replay showed.
        losses: by name the losses around the spike: as recorded, and of each replay.
        layer: the layer whose gradient grew most, and how many times.
        update: the largest update up to the spike, in multiples of the median before.
        rate: the same of the learning rate.
    """

    step: int
    cause: str
    rank: int
    sentence: str
    tests: dict[str, str]
    losses: dict[str, list[float]]
    layer: tuple[str, float]
    update: float
    rate: float

    def __str__(self) -> str:
        if self.step < 0:
            return self.sentence
        count = len(next(iter(self.losses.values())))
        rows = {"step": [str(self.step - count + 2 + k) for k in range(count)]}
        rows |= {name: [f"{loss:.4g}" for loss in losses] for name, losses in self.losses.items()}
        said = [f"{name}: {found}" for name, found in self.tests.items()]
        grew = f"largest growth of a layer's gradient: {self.layer[0]}, {self.layer[1]:,.3g} times its median"
        update = f"largest update: {self.update:,.3g} times its median; learning rate: {self.rate:,.3g} times"
        return "\n".join([table(rows), *said, grew, update, f"=> {self.cause}: {self.sentence}"])


def spike(cause: str, *, seed: int = 0, ranks: int = 4) -> Spike:
    """Trains on `ranks` ranks with a fault of the kind `cause` at step 63, finds the spike, and traces it.

    Args:
        cause: one of `CAUSES`, or "" for a run without a fault.
        seed: of weights and batches.
        ranks: how many ranks; the fault of a single rank is rank 2's.

    Raises:
        ValueError: there is no such cause.
    """
    if cause and cause not in CAUSES:
        raise ValueError(f"no cause is called {cause!r}: expected one of {', '.join(CAUSES)}")
    images, labels = models.digit_images()
    run = launch(_run, images, labels, cause, seed, ranks=ranks, device="cpu", record=False, timeout=300)
    return run[0]


def _run(images: Tensor, labels: Tensor, cause: str, seed: int) -> Spike:
    """On each rank: the run that spikes, then the procedure."""
    job = SmallJob(
        images,
        labels,
        seed=seed,
        damage=_damage(cause),
        rate=(lambda step: 100 * RATE if step == AT else RATE) if cause == "learning rate" else (lambda _: RATE),
        poison=AT if cause == "data" else -1,
    )
    checkpoints, compared = {}, []
    for step in range(AT + EVERY):
        if step == AT and cause == "second moment":
            _lose_second_moment(job)
            checkpoints[step] = job.snapshot()  # as it was loaded
        if step % EVERY == 0:
            checkpoints[step] = job.snapshot()
        job.step()
        compared.append(compare_replicas(held_by(job.net)))
    if "once" in cause or cause == "replica":
        job.damage = no_damage  # it does not come again
    return trace_spike(job, checkpoints, compared)


def _damage(cause: str) -> Damage:
    """What a rank with a bad card does to its numbers: an exponent bit of a number below 1 flips: it is huge.

    In the input of its forward pass all gradients suffer. In a single gradient Adam would hide it: an update is about
    the learning rate, however large the gradient is.
    """
    place = {"hardware once": INPUT, "hardware always": INPUT, "replica": WEIGHT}.get(cause)

    def strike(here: str, step: int, tensors: list[Tensor]) -> None:
        if here == place and step >= AT and (step == AT or "always" in cause) and dist.get_rank() == CULPRIT:
            sizes = tensors[-1].abs().reshape(-1)
            flip(tensors[-1], largest(sizes.where(sizes < 1, 0).tolist()), EXPONENT_BIT)

    return strike


def _lose_second_moment(job: SmallJob) -> None:
    """What a restart does that loads the first moment and the count of steps, and forgets the second moment."""
    for state in job.optimizer.state.values():
        state["exp_avg_sq"].zero_()


def first_outlier(losses: Sequence[float]) -> int:
    """The first step whose loss is an outlier among those before; -1 if there is none."""
    return next((step for step, loss in enumerate(losses) if is_outlier(loss, losses[:step])), -1)


def trace_spike(job: SmallJob, checkpoints: dict[int, tuple], compared: Sequence[Replicas]) -> Spike:
    """The procedure, on all ranks of a run that is over.

    Args:
        job: the run.
        checkpoints: in memory, by step.
        compared: the replicas after each step.
    """
    notes = list(job.notes)
    step = first_outlier(job.losses)
    if step < 0:
        return Spike(-1, "none", -1, "no loss is an outlier", {}, {}, ("", 1.0), 1.0, 1.0)
    start = max(each for each in checkpoints if each < step)
    earlier = max(each for each in checkpoints if each < start)
    span = range(start, min(step + 2, len(notes)))
    recorded = [note.loss for note in notes[start : span.stop]]

    again = _replay(job, checkpoints[start], span)
    odd = _odd_rank(job, checkpoints[start], span)
    others = _replay(job, checkpoints[start], [ELSEWHERE + each for each in span])
    back = _replay(job, checkpoints[earlier], span)
    reproduced, in_state, in_data = again == recorded, _spikes(others, notes[:start]), _spikes(back, notes[:earlier])
    differing = next((each for each in compared[start : step + 1] if not each.equal), None)
    tests = {
        f"1 again from step {start}": "the same losses, bit by bit" if reproduced else "other losses than recorded",
        "2 each share on every rank": f"rank {odd} gets other bits" if odd >= 0 else "all ranks get the same bits",
        "3 other batches": "the spike comes again" if in_state else "no spike",
        f"4 from step {earlier}": "the spike comes again" if in_data else "no spike",
        "recorded": str(differing or "the replicas were equal"),
    }
    around = slice(max(0, step - start - 1), None)
    losses = {"recorded": recorded, "again": again, "other batches": others, "other checkpoint": back}
    growth = _growth(notes, start, step)
    blame = "the learning rate was wrong" if growth[2] > 2 else "Adam's moments no longer fit the gradients"
    cause, rank, sentence = _conclude(reproduced, odd, in_state, in_data, differing, blame)
    shown = {name: each[around] for name, each in losses.items()}
    return Spike(step, cause, rank, sentence, tests, shown, *growth)


def _replay(job: SmallJob, checkpoint: tuple, batches: Sequence[int]) -> list[float]:
    job.restore(checkpoint)
    return [job.step(batch).loss for batch in batches]


def _spikes(losses: Sequence[float], before: Sequence[Step]) -> bool:
    history = [note.loss for note in before]
    return any(is_outlier(loss, history) for loss in losses)


def _odd_rank(job: SmallJob, checkpoint: tuple, span: Sequence[int]) -> int:
    """The rank whose gradient differs in bits from those that the others compute of the same shares; -1 for none."""
    job.restore(checkpoint)
    odd = -1
    for batch in span:
        for share in range(dist.get_world_size()):
            found = compare_replicas(job.gradients(batch, share)).odd
            odd = found[0] if found and odd < 0 else odd
        job.step(batch)
    return odd


def _conclude(
    reproduced: bool, odd: int, in_state: bool, in_data: bool, differing: Replicas | None, blame: str
) -> tuple[str, int, str]:
    """Cause, rank and sentence, in the order of the tests."""
    if odd >= 0:
        return "hardware", odd, f"rank {odd} computes other bits than the others from the same numbers: replace it"
    if not reproduced:
        spread = "and the replicas were equal: it was spread by an all-reduce, and no rank can be named"
        rank = differing.odd[0] if differing and len(differing.odd) == 1 else -1
        return "hardware", rank, f"the same steps do not spike again, {f'and {differing}' if differing else spread}"
    if in_state:
        return "optimizer", -1, "other batches spike as well: it is in the state, and " + blame
    if in_data:
        return "data", -1, "the same batches spike from another checkpoint: look at the samples of that step"
    return "both", -1, "it takes this batch at this state: go back, skip the batch, and write both down"


def _growth(notes: Sequence[Step], start: int, step: int) -> tuple[tuple[str, float], float, float]:
    """By how much the gradient of which layer grew, the update, and the learning rate, up to the spike."""
    before, around = notes[:start], notes[start : step + 1]

    def grown(of: Callable[[Step], float]) -> float:
        return max(map(of, around)) / median(map(of, before))

    layers = {name: grown(lambda note, name=name: note.layers[name]) for name in notes[0].layers}
    most = list(layers)[largest(list(layers.values()))]
    return (most, layers[most]), grown(lambda note: note.update), grown(lambda note: note.rate)
