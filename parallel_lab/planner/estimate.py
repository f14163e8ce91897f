"""What a run costs before it runs: memory, the time of a step with its parts, and what follows from both.

    found = estimate(model("llama3-70b"), cluster("h100-ib", gpus=1024), Scheme(pp=4, dp=32, tp=8, zero=1), batch=1024)
    found.step_s, found.mfu, found.fits
    print(found.why("step"))           # a tree: each number with its formula and source
    draw(found.trace)                  # the step as the simulator has it

The constants are those that `calibrate` fitted to published runs. Times are a model's; tests/planner and
`python -m parallel_lab.planner.calibrate` say how far they are from what was measured.
All rows of the fit are of V100 and A100: for a later chip, experts, 8 bits or context parallelism no error is known.
"""

from dataclasses import dataclass
from functools import cached_property

from parallel_lab.model.budget import recomputed_flops
from parallel_lab.model.config import GPTConfig
from parallel_lab.model.formulas import flops_per_token
from parallel_lab.network import CostModel
from parallel_lab.network.cost import MESSAGES
from parallel_lab.pipeline import with_messages
from parallel_lab.plan import Op, Plan
from parallel_lab.planner.clusters import Cluster
from parallel_lab.planner.constants import Constants
from parallel_lab.planner.constants import constants as fitted
from parallel_lab.planner.cost import Run
from parallel_lab.planner.exchange import Exchange
from parallel_lab.planner.memory import memory, room
from parallel_lab.planner.models import attention_flops
from parallel_lab.planner.passes import Setting
from parallel_lab.planner.pipe import schedule_plan
from parallel_lab.planner.reasons import rates, step_term
from parallel_lab.planner.scheme import Scheme
from parallel_lab.planner.step import Step
from parallel_lab.planner.terms import Term
from parallel_lab.simulate import simulate
from parallel_lab.trace import Trace


@dataclass(frozen=True)
class Estimate:
    """What `estimate` found. What is not asked for is not computed.

    Attributes:
        shape: the model.
        cluster: the machines.
        scheme: the layout.
        batch: sequences of a step, over all ranks.
        timing: the step, by stage and cause.
    """

    shape: GPTConfig
    cluster: Cluster
    scheme: Scheme
    batch: int
    timing: Step

    @cached_property
    def step_s(self) -> float:
        """Seconds of a step."""
        return self.timing.step_s

    @cached_property
    def step(self) -> Term:
        """The same by cause, as a tree that adds up."""
        return step_term(self.timing)

    @cached_property
    def memory(self) -> Term:
        """Bytes of the fullest rank, by kind."""
        return memory(self.shape, self.scheme, self.batch)

    @property
    def fits(self) -> bool:
        """Whether the fullest rank has room for it."""
        return self.memory.value <= room(self.cluster)

    @property
    def tokens(self) -> int:
        """Of a step."""
        return self.batch * self.shape.seq

    @property
    def tokens_per_s(self) -> float:
        """Of all ranks together."""
        return self.tokens / self.step_s

    @property
    def model_flops(self) -> float:
        """Of a step, forward and backward, the whole square of attention counted."""
        count = getattr(self.shape, "flops_per_token", None)
        return self.tokens * (count(self.shape.seq) if count else flops_per_token(self.shape))

    @property
    def hardware_flops(self) -> float:
        """The same with what is computed again."""
        core = 3 * self.shape.layers * attention_flops(self.shape, self.shape.seq) * self.tokens
        return recomputed_flops(self.model_flops, core, self.scheme.recompute)

    @property
    def mfu(self) -> float:
        """Model FLOPs utilization."""
        return self.model_flops / (self.step_s * self.cluster.gpus * self._peak)

    @property
    def hfu(self) -> float:
        """Hardware FLOPs utilization: with what is computed again."""
        return self.hardware_flops / (self.step_s * self.cluster.gpus * self._peak)

    @property
    def _peak(self) -> float:
        return self.cluster.accelerator.peak_flops_per_s(self.scheme.precision)

    def run(self, tokens: float, goodput: float = 1.0) -> Run:
        """A training on so many tokens: its days, energy, carbon and money as terms."""
        return Run(self.shape, self.cluster, self.batch, self.step_s, tokens, goodput)

    def days(self, tokens: float) -> float:
        """To train on so many, where nothing fails."""
        return self.run(tokens).days.value

    def kwh(self, tokens: float) -> float:
        """Of the accelerators at their TDP, times the PUE of the building, without what the rest of a server draws."""
        return self.run(tokens).kwh.value

    def usd(self, tokens: float) -> float:
        """At the cluster's price."""
        return self.run(tokens).usd.value

    def why(self, name: str = "step") -> str:
        """Why a number is what it is, as a tree: "step", "memory", a part of either, "mfu", "hfu", "tokens per second".

        Raises:
            KeyError: there is none of that name; the message lists those that there are.
        """
        speeds = rates(self.model_flops, self.hardware_flops, self.tokens, self.step_s, self.cluster.gpus, self._peak)
        for term in (*speeds, self.step, self.memory):
            found = term.find(name)
            if found:
                return found.tree()
        known = ["step", *(part.name for part in self.step), "memory", *(part.name for part in self.memory)]
        known += [speed.name for speed in speeds]
        raise KeyError(f"no part {name!r}: there are {', '.join(known)}")

    @property
    def plan(self) -> Plan:
        """The step as a plan: one rank of each stage, its passes and messages, and what comes after them."""
        scheme, timing = self.scheme, self.timing
        passes = schedule_plan(scheme.schedule, scheme.pp, timing.microbatches, scheme.stages_each)
        rows = with_messages(passes)
        tails = [
            tuple(Op(rank, name, rank, phase="step") for name, s in timing.tail.items() if s)
            for rank in range(scheme.pp)
        ]
        return Plan(tuple((*row, *tail) for row, tail in zip(rows.rows, tails, strict=True)), dict(rows.needs))

    @cached_property
    def trace(self) -> Trace:
        """The plan, simulated op by op."""
        return simulate(self.plan, _StepCost(self.timing))


class _StepCost(CostModel):
    """The seconds of the ops of a step."""

    def __init__(self, timing: Step) -> None:
        self.timing = timing
        self.message_bytes = int(timing.setting.activation_bytes / timing.setting.scheme.tp)

    def seconds(self, op: Op) -> float:
        if op.kind in MESSAGES:
            return self.timing.message_s
        if op.phase == "step":
            return self.timing.tail[op.kind]
        return self.timing.seconds.of(op.kind, op.part)

    def bytes(self, op: Op) -> int:
        return self.message_bytes if op.kind in MESSAGES else 0


def estimate(
    shape: GPTConfig,
    cluster: Cluster,
    scheme: Scheme,
    batch: int,
    *,
    constants: Constants | None = None,
    overlap: bool = True,
    check: bool = True,
) -> Estimate:
    """What a run costs.

    Args:
        shape: the model; `seq` is the length of its sequences.
        cluster: where it runs.
        scheme: how it is laid out.
        batch: sequences of a step, over all ranks.
        constants: others than the fitted ones.
        overlap: whether sums and gathers over data ranks run beside computation, as in today's frameworks; those of
            2020 to 2022 did it only with ZeRO-3.
        check: whether to refuse what cannot be trained so.

    Raises:
        ValueError: the scheme does not go with the model, the cluster or the batch.
    """
    if check:
        scheme.check(shape, cluster, batch)
    setting = Setting(shape, scheme, Exchange(cluster, constants or fitted()), overlap)
    return Estimate(shape, cluster, scheme, batch, Step(setting, batch))
