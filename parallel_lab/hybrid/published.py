"""Layouts of published runs, replayed in the simulator and held against the TFLOP/s that were measured.

    rows = runs("megatron")                  # ten models on 32 to 3072 GPUs; also "llama3" and "sweep"
    share = fitted(rows[0])                  # taken from this row: at which share of the peak products run
    for run in rows:
        again = replay(run, share)           # everything else is predicted
        print(run.model, run.tflops, again.tflops, again.off, again.shares)
    share_of = between(rows[0], rows[7])     # two rows give a share that rises with the width: share_of(run)

A step is a plan: the passes of a pipeline with their messages (1F1B, or interleaved where the run was), then the sum of
the gradients over the data ranks. A pass takes the time of its products, FLOPs / (share x peak), and of the collectives
inside it: for each layer and way two all-reduces over the tensor ranks, and under context parallelism a gather of keys
and values, or its reverse. All ranks of an axis do the same, so one stands for each stage.

What goes in: shape, batch, layout, microbatch, chunks, and the FLOPs that the source counts; of the machine its peak
and its links; and `share`, fitted on one row, which then predicts nothing. What comes out, `tflops`, is simulated. Left
out are norms, GELU and dropout (they count into `share`), the optimizer's step and the loading of data. And one share
for all rows says that products of all sizes run equally well, which is where most of the difference between models
comes from. How far off it comes out (tests/hybrid/test_published.py): of ten models, fitted on the smallest, up to a
third below what was measured; with `between`, within 4 % for the models between the two that are fitted, and 7 % below
for the largest; of one model in twenty layouts 7 % at the most, 3.6 % on average; of Llama 3 on twice the GPUs 1 %, and
10 % at sixteen times the context.

Sources:
    megatron: Narayanan et al. 2021 (arXiv 2104.04473), table 1, A100 with 80 GB. Microbatches, chunks and who hides the
        sum of gradients (`DDP=torch`) are in the authors' script for that table, Megatron-LM, examples/sc21/
        run_table_1.sh; for 1008B it has no chunks.
    sweep: Bang et al. 2024, vTrain (MICRO), data/ground_truth_multi.csv of its repository: one model of 175B in twenty
        layouts, Megatron-DeepSpeed on 512 A100 with 800 Gbit/s a node, 1F1B, all activations recomputed; step times,
        from which `tflops` follows.
    llama3: Dubey et al. 2024, "The Llama 3 herd of models" (arXiv 2407.21783), tables 3 and 4, section 3.3.2: the first
        and the last stage have a layer less, which leaves their end chunks without any; so a chunk is a layer, and 126
        and 2 of them are 8 for each of 16 ranks. Gradients are summed in 4 bytes and weights gathered in 2, so 3 each
        way, beside computing; keys and values are gathered in front of it; nothing is recomputed. The microbatch is
        not given: one sequence. Nor is whether FLOPs count all pairs of tokens: here those that see each other.
"""

import csv
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.resources import files

from parallel_lab.hybrid.machines import MACHINES, Machine
from parallel_lab.model.budget import Shape
from parallel_lab.model.formulas import feed_forward_parameters
from parallel_lab.network import CostModel, Price, price
from parallel_lab.network.cost import MESSAGES
from parallel_lab.pipeline import interleaved, one_f_one_b, with_messages, with_needs
from parallel_lab.plan import Op, Plan
from parallel_lab.simulate import PassCost, simulate
from parallel_lab.trace import Trace

NUMBER_BYTES = 2  # of an activation


@dataclass(frozen=True)
class Run:
    """A row of a published table.

    Attributes:
        table, model: Where it stands, and as what.
        shape: The model, with the sequence's length.
        batch: Sequences a step, over all ranks.
        pp, dp, cp, tp: The layout.
        microbatch: Sequences that go through the pipeline together.
        chunks: Stages of each pipeline rank.
        gradient_bytes: Of a parameter, on each of the two ways of the sum over data ranks.
        recompute: Whether backward computes forward again.
        overlapped: Whether the sum over data ranks runs beside the last backwards; here it then hides as much as fits.
        tflops: What was measured, TFLOP/s for each GPU, with the FLOPs that the source counts.
    """

    table: str
    model: str
    machine: Machine
    shape: Shape
    batch: int
    pp: int
    dp: int
    cp: int
    tp: int
    microbatch: int
    chunks: int
    gradient_bytes: int
    recompute: bool
    overlapped: bool
    tflops: float

    @property
    def world(self) -> int:
        """GPUs."""
        return self.pp * self.dp * self.cp * self.tp

    @property
    def m(self) -> int:
        """Microbatches of a step."""
        return self.batch // (self.dp * self.microbatch)

    @property
    def tokens(self) -> float:
        """Of one microbatch on one rank."""
        return self.microbatch * self.shape.seq / self.cp

    @cached_property
    def layers(self) -> list[int]:
        """How many there are in each chunk; where two are missing, the first and the last have one less."""
        chunks = self.pp * self.chunks
        each = -(-self.shape.layers // chunks)
        missing = each * chunks - self.shape.layers
        return [each - (missing == 2 and place in (0, chunks - 1)) for place in range(chunks)]

    @cached_property
    def layer_flops(self) -> float:
        """Forward of one layer for one token: 2 FLOPs a weight, and of attention 4 h s, or half where `causal`."""
        shape = self.shape
        weights = 2 * shape.width * (shape.width + shape.kv_width) + feed_forward_parameters(shape)
        attention = 4 * shape.width * shape.seq
        return 2 * weights + (attention / 2 if self.causal else attention)

    @property
    def causal(self) -> bool:
        """Whether only pairs of tokens that see each other count. In Megatron's equation 3 all do; Llama gives none."""
        return self.table == "llama3"

    @property
    def head_flops(self) -> float:
        """Forward of the output layer for one token."""
        return 2 * self.shape.vocab * self.shape.width

    @property
    def step_flops(self) -> float:
        """A step over all ranks, as the source counts: forward, twice that for backward, and what is recomputed."""
        layers = (4 if self.recompute else 3) * self.shape.layers * self.layer_flops
        return self.batch * self.shape.seq * (layers + 3 * self.head_flops)


def runs(table: str) -> list[Run]:
    """The rows of `"megatron"` (10), `"sweep"` (20) or `"llama3"` (3).

    Raises:
        ValueError: There is no such table.
    """
    with files("parallel_lab.hybrid").joinpath("published.csv").open(encoding="utf-8") as lines:
        rows = [row for row in csv.DictReader(lines) if row["table"] == table]
    if not rows:
        raise ValueError(f"no table {table!r}: there are megatron, sweep and llama3")
    return [_run(row) for row in rows]


def _run(row: dict[str, str]) -> Run:
    table, model, machine, tflops, step_s = (row.pop(key) for key in ("table", "model", "machine", "tflops", "step_s"))
    of = {name: int(text) for name, text in row.items()}
    gated = bool(of.pop("gated"))
    shape = {name: of.pop(name) for name in ("vocab", "seq", "layers", "heads", "kv_heads", "width", "hidden")}
    switches = {name: bool(of.pop(name)) for name in ("recompute", "overlapped")}
    like_gpt2 = {} if gated else {"tied": True, "bias": True, "positions": "learned", "norm": "layer"}
    whole = Shape(**shape, gated=gated, **like_gpt2)
    run = Run(table, model, MACHINES[machine], whole, **of, **switches, tflops=float(tflops or 0))
    return run if tflops else replace(run, tflops=run.step_flops / (float(step_s) * run.world) / 1e12)


class StepCost(CostModel):
    """What the ops of a step of `run` take, where products run at `share` of the peak."""

    def __init__(self, run: Run, share: float) -> None:
        machine, tokens, layers = run.machine, run.tokens, run.layers
        flops_per_s = share * machine.peak_flops_per_s * run.tp  # of the tensor ranks together
        activation = tokens * run.shape.width * NUMBER_BYTES
        keys_values = run.microbatch * run.shape.seq * 2 * run.shape.kv_width / run.tp * NUMBER_BYTES
        sums = 2 * price("all_reduce", run.tp, activation).seconds(machine.fast)
        gathers = price("all_gather", run.cp, keys_values).seconds(machine.slow)
        computing = tokens * run.layer_flops / flops_per_s
        self.inside_s = sums + gathers  # of one layer, one way
        forward = [count * (computing + self.inside_s) for count in layers]
        again = forward if run.recompute else [0.0] * len(layers)
        backward = [count * (2 * computing + self.inside_s) + a for count, a in zip(layers, again, strict=True)]
        head = tokens * run.head_flops / flops_per_s
        forward[-1] += head
        backward[-1] += 2 * head
        self.message_bytes = int(activation / run.tp)  # each tensor rank sends its part, and they gather it in the node
        message_s = machine.slow.seconds(self.message_bytes)
        message_s += price("all_gather", run.tp, activation).seconds(machine.fast)
        self.passes = PassCost(forward, backward, message_s=message_s)
        self.gradients = price("all_reduce", run.dp * run.cp, self.of_rank(run) * run.gradient_bytes)
        self.sum_s = self.gradients.seconds(machine.slow)
        hidden = run.chunks * sorted(backward)[len(backward) // 2] if run.overlapped else 0.0
        self.exposed_s = max(0.0, self.sum_s - hidden)

    @staticmethod
    def of_rank(run: Run) -> float:
        """Parameters of one rank, where stages are equal."""
        return run.shape.parameters / (run.pp * run.tp)

    def seconds(self, op: Op) -> float:
        """A pass, a message, or what of the sum over data ranks is not hidden."""
        return self.exposed_s if op.kind == "all_reduce" else self.passes.seconds(op)

    def bytes(self, op: Op) -> int:
        """The payload of a message."""
        return self.message_bytes if op.kind in MESSAGES else 0

    def price(self, op: Op) -> Price:
        """The sum over data ranks."""
        return self.gradients


def step_plan(run: Run) -> Plan:
    """One rank of each stage: passes and messages, and the sum of the gradients when the rank's passes are over."""
    schedule = one_f_one_b(run.pp, run.m) if run.chunks == 1 else interleaved(run.pp, run.m, run.chunks)
    sums = (Op(rank, "all_reduce", rank, axis="dp", phase="step") for rank in range(run.pp))
    return with_messages(with_needs([(*row, one) for row, one in zip(schedule.rows, sums, strict=True)]))


@dataclass(frozen=True)
class Replay:
    """What came out of the simulator, beside what was published.

    Attributes:
        run: The row.
        trace: The step, simulated.
        cost: What its ops took.
    """

    run: Run
    trace: Trace
    cost: StepCost

    @property
    def step_s(self) -> float:
        """Simulated seconds of a step."""
        return self.trace.duration_s

    @property
    def tflops(self) -> float:
        """Simulated TFLOP/s for each GPU."""
        return self.run.step_flops / (self.step_s * self.run.world) / 1e12

    @property
    def off(self) -> float:
        """Simulated over published, less 1."""
        return self.tflops / self.run.tflops - 1

    @property
    def shares(self) -> dict[str, float]:
        """Of the step of an average rank: collectives inside passes, idle in the pipeline, the sum of gradients."""
        run, cost = self.run, self.cost
        ways = 3 if run.recompute else 2
        inside = run.m * ways * run.shape.layers / run.pp * cost.inside_s
        busy = sum(self.trace.busy_s(rank) for rank in range(run.pp)) / run.pp
        return {
            "inside": inside / self.step_s,
            "idle": 1 - busy / self.step_s,
            "gradients": cost.exposed_s / self.step_s,
        }


def replay(run: Run, share: float) -> Replay:
    """`run` in the simulator, where products run at `share` of the machine's peak."""
    cost = StepCost(run, share)
    return Replay(run, simulate(step_plan(run), cost), cost)


def fitted(run: Run) -> float:
    """The share of the peak at which the replay of `run` has the published TFLOP/s: that row then predicts nothing."""
    plan, wanted_s = step_plan(run), run.step_flops / (run.tflops * 1e12 * run.world)

    def late_s(slowness: float) -> float:
        return simulate(plan, StepCost(run, 1 / slowness)).duration_s - wanted_s

    one, other = 1.0, run.machine.peak_flops_per_s / (run.tflops * 1e12)
    late_one, late_other = late_s(one), late_s(other)
    while abs(late_other) > 1e-9 * wanted_s:  # a secant: the step is nearly linear in the seconds of a FLOP
        one, other = other, other - late_other * (other - one) / (late_other - late_one)
        late_one, late_other = late_other, late_s(other)
    return 1 / other


def between(one: Run, other: Run) -> Callable[[Run], float]:
    """A share for each run, 1 / share = least + slope / width, from two rows that then predict nothing.

    Products of a layer grow with the square of the width, and what only reads and writes, with the width alone.
    """
    slowness, widths = [1 / fitted(run) for run in (one, other)], [run.shape.width for run in (one, other)]
    slope = (slowness[0] - slowness[1]) / (1 / widths[0] - 1 / widths[1])
    least = slowness[0] - slope / widths[0]
    return lambda run: 1 / (least + slope / run.shape.width)
