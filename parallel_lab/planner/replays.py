"""Steps of published runs, replayed at full scale by `estimate` beside what was reported (the rows are in `runs.yaml`).

    for row in replays():
        print(row.name, row.reported_s, row.estimate().step_s)

A replay predicts a step from shape, layout, batch and machine. Its source rarely gives all of that: `assumed` says what
was filled in. TPUs and Ascend chips are not replayed: the constants of `estimate` were fitted on GPUs.
"""

from dataclasses import dataclass
from typing import Any

from parallel_lab.planner.clusters import Cluster, cluster
from parallel_lab.planner.estimate import Estimate, estimate
from parallel_lab.planner.models import Model, model
from parallel_lab.planner.runs import table
from parallel_lab.planner.scheme import Scheme


@dataclass(frozen=True)
class Replay:
    """A step of a published run, with all that `estimate` needs.

    Attributes:
        batch: sequences of a step.
        step_s: seconds as published; else they follow from `tflops` or `mfu`.
        tflops: TFLOP/s per GPU as published, FLOPs of the model alone.
        mfu: utilization as published, in per cent.
        causal: whether the source's FLOPs count only pairs of tokens that see each other.
        overlap: whether sums over data ranks run beside computation; the pipelines of Megatron-LM and DeepSpeed of
            2020 to 2022 did not do that.
        fitted: whether the constants of `estimate` were fitted to this row, among others.
        assumed: what the source does not give.
    """

    name: str
    shape: Model
    cluster: Cluster
    batch: int
    scheme: Scheme
    step_s: float | None = None
    tflops: float | None = None
    mfu: float | None = None
    causal: bool = False
    overlap: bool = True
    fitted: bool = False
    assumed: str = ""

    @property
    def flops(self) -> float:
        """FLOPs of the model in a step, over all GPUs, as the source counts them."""
        return self.batch * self.shape.seq * self.shape.flops_per_token(self.shape.seq, self.causal)

    @property
    def reported_s(self) -> float:
        """Seconds of a step, as published or as they follow from it."""
        if self.step_s:
            return self.step_s
        peak = self.cluster.accelerator.peak_flops_per_s("bf16")
        rate = 1e12 * self.tflops if self.tflops else (self.mfu or 0) / 100 * peak
        return self.flops / (rate * self.scheme.world)

    def estimate(self) -> Estimate:
        """The step as the planner predicts it."""
        return estimate(self.shape, self.cluster, self.scheme, self.batch, overlap=self.overlap)

    def off(self, predicted_s: float) -> float:
        """By which share of the reported time a prediction is too slow; negative where it is too fast."""
        return predicted_s / self.reported_s - 1


def replays() -> list[Replay]:
    """The steps that can be replayed."""
    return [_replay(**row) for row in table()["replays"]]


def _replay(*, seq: int, scheme: dict[str, Any], **row: Any) -> Replay:
    laid = Scheme(**scheme)
    shape, machines = model(row.pop("model"), seq), cluster(row.pop("cluster"), laid.world)
    return Replay(shape=shape, cluster=machines, scheme=laid, **row)
