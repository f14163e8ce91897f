"""A stand-in for the planner's model of costs: simple, quick, and unpredictable enough that a wrong search shows."""

import random
from dataclasses import dataclass, replace

from parallel_lab.planner.clusters import cluster
from parallel_lab.planner.models import model
from parallel_lab.planner.scheme import Scheme
from parallel_lab.planner.search import Model
from parallel_lab.planner.terms import Term

SHAPE = replace(model("llama3-8b"), layers=8, seq=2048)
KEPT = {"none": 1.0, "selective": 0.6, "full": 0.1}
AGAIN = {"none": 1.0, "selective": 1.05, "full": 1.33}


@dataclass(frozen=True)
class Priced:
    """What the search reads of an estimate."""

    scheme: Scheme
    memory: Term
    step: Term
    fits: bool

    @property
    def step_s(self):
        return self.step.value


def machine(gpus=16, gb=80.0):
    """H100 with so much memory each."""
    made = cluster("h100-ib", gpus=gpus)
    return replace(made, accelerator=replace(made.accelerator, memory_bytes=gb * 1e9))


def toy(seed, looser=1.0):
    """A model of costs; `looser` below 1 makes its bound a lie."""

    def memory(shape, of, scheme, batch):
        own = shape.parameters / (scheme.pp * scheme.tp)
        data, m = scheme.shard or scheme.data, scheme.microbatches(batch)
        held = [2 * own, 4 * own, 12 * own]  # weights, gradients, optimizer
        for stage, part in ((3, 0), (2, 1), (1, 2)):
            held[part] /= data if scheme.zero >= stage else 1
        if scheme.offload == "optimizer":
            held[2] = 0
        kept = 34 * scheme.microbatch * shape.seq * shape.width * shape.layers / (scheme.pp * scheme.tp * scheme.cp)
        needed = sum(held) + KEPT[scheme.recompute] * kept * min(scheme.pp, m)
        return needed, needed <= of.memory_bytes

    def work_s(shape, of, scheme, batch):
        m = scheme.microbatches(batch)
        flops = 6 * shape.parameters * scheme.microbatch * shape.seq / (scheme.pp * scheme.tp * scheme.cp)
        stage_s = AGAIN[scheme.recompute] * flops / 4e14 + 1e-4 * shape.layers / scheme.pp * (scheme.tp - 1)
        return m * stage_s, stage_s

    def family_floor_s(shape, of, family, batch):
        return work_s(shape, of, family, batch)[0] / looser

    def scheme_floor_s(one):
        return (one.step["work"].value + one.step.get("bubble")) / looser

    def estimate(shape, of, scheme, batch):
        work, stage_s = work_s(shape, of, scheme, batch)
        chance = random.Random(f"{seed} {scheme}").random()
        bubble = (scheme.pp - 1) / scheme.stages_each * stage_s
        parts = Term("work", work, "s"), Term("bubble", bubble, "s"), Term("other", chance * work / 3, "s")
        needed, fits = memory(shape, of, scheme, batch)
        step = Term("step", sum(part.value for part in parts), "s", parts=parts)
        return Priced(scheme, Term("memory", needed, "B"), step, fits)

    def group_floor_bytes(shape, of, leanest, batch):
        return memory(shape, of, leanest, batch)[0]

    return Model(
        estimate, family_floor_s, scheme_floor_s, scheme_floor_s, group_floor_bytes, lambda of: of.memory_bytes
    )
