"""What the planner says of a scheme and what eight real ranks then send and hold: the same, to the byte.

Sent, beside what is predicted: flags, the loss and the norm, less than 100 bytes a step. Held by the optimizer: its
count of steps, 4 bytes for each tensor.
"""

import dataclasses

import pytest

from parallel_lab import launch
from parallel_lab.hybrid import Layout, formulas, parallelize, train_step
from parallel_lab.hybrid.step import gradients
from parallel_lab.model import GPTConfig, build
from parallel_lab.model.data import text_batches
from parallel_lab.planner import Scheme, memory, traffic
from parallel_lab.planner.stages import part
from parallel_lab.trace import recorder
from parallel_lab.trace.memory import SavedTensors, held_bytes, storages

GPT2 = GPTConfig(seq=32, layers=4, heads=12, width=48)
LLAMA = dataclasses.replace(
    GPT2, gated=True, norm="rms", positions="rotary", tied=False, bias=False, hidden=72, kv_heads=6
)
EXPERTS = dataclasses.replace(GPT2, experts=4, active_experts=2, mlp_ratio=1)
BATCH = 16
FEW_BYTES = 100
STEP_COUNT_BYTES = 4


def scheme(**axes):
    """One that this course's executor runs: float32, and sequence parallelism only where asked for."""
    return Scheme(**{"sequence_parallel": False, "precision": "fp32", "states": "float32", "zero": 1, **axes})


DENSE = [
    (GPT2, scheme(pp=2, dp=2, tp=2, microbatch=2)),
    (GPT2, scheme(pp=2, dp=2, tp=2, microbatch=2, zero=0)),
    (GPT2, scheme(dp=8, microbatch=2, zero=3)),
    (GPT2, scheme(tp=4, dp=2, microbatch=2, sequence_parallel=True)),
    (LLAMA, scheme(tp=2, cp=2, dp=2, microbatch=2)),
    (LLAMA, scheme(pp=4, dp=2, microbatch=2)),
    (LLAMA, scheme(pp=4, dp=2, microbatch=2, schedule="gpipe")),
    (LLAMA, scheme(pp=2, dp=4, schedule="zb_v")),
]
MIXTURES = [(EXPERTS, scheme(pp=2, dp=4, ep=2, microbatch=2))]


def measured():
    """For each case the rank's stage, what it sent by axis, the bytes it held, and the most that autograd kept."""
    return [run(*case) for case in (*DENSE, *MIXTURES)]


def run(config, plan):
    """Two steps, of which the second is counted, and looked at before its gradients are gone."""
    layout = Layout(pp=plan.pp, dp=plan.dp, cp=plan.cp, tp=plan.tp, ep=plan.ep)
    options = {"zero": plan.zero, "schedule": plan.schedule, "microbatches": plan.microbatches(BATCH), "lr": 1e-3}
    made = parallelize(build(config), layout, sequence=plan.sequence_parallel, **options)
    first, second = text_batches(config.seq, BATCH, 2)
    train_step(made, *first)  # its pipeline also tells shapes
    before = len(recorder().spans)
    parameters = [p for stage in made.stages.values() for p in stage.parameters()]
    with SavedTensors() as saved:
        saved._skip = storages(parameters)
        gradients(made, *second, second[1].numel())
    held = {"weights": sum(storages(parameters).values())}
    held["gradients"] = sum(storages(p.grad for p in parameters).values())
    made.optimizer.step()
    sent: dict[str, int] = {}
    for span in recorder().spans[before:]:
        sent[span.axis] = sent.get(span.axis, 0) + span.sent_bytes
    labels = {axis: getattr(group, "axis", "") for axis, group in made.groups.items()}
    held["optimizer"] = sum(optimizer_bytes(each) for each in getattr(made.optimizer, "optimizers", [made.optimizer]))
    return made.place["pp"], sent, labels, held, saved.peak_bytes, len(parameters)


def optimizer_bytes(optimizer):
    """Bytes of moments and of counts of steps."""
    inner = getattr(optimizer, "optimizer", optimizer)
    if inner is optimizer:  # its parameters are the model's
        return sum(storages(t for state in optimizer.state.values() for t in state.values()).values())
    return held_bytes(None, inner)["optimizer_state"]


@pytest.fixture(scope="module")
def ranks():
    """What each of eight ranks measured, case by case."""
    return launch(measured, ranks=8, timeout=240).results


def by_label(config, plan, stage, labels):
    """The prediction under the names that a trace has: axes of the same ranks share a group, and so a name."""
    expected: dict[str, float] = {}
    terms = traffic(config, plan, BATCH, rank=stage)
    parts = {"pp": terms["pp"].get("messages"), "tied": terms["pp"].get("tied weight")}
    parts |= {labels["tp"]: terms["tp"].value, labels["cp"]: terms["cp"].value}
    for name, size in (*parts.items(), (labels["dp_cp"], terms["data"].get("outside of experts"))):
        expected[name] = expected.get(name, 0) + size
    if plan.ep > 1:
        expected[labels["edp"]] = expected.get(labels["edp"], 0) + terms["data"].get("experts")
    return expected


def test_bytes_by_axis_are_the_predicted_ones(ranks):
    for result in ranks:
        for (config, plan), (stage, sent, labels, *_) in zip((*DENSE, *MIXTURES), result, strict=True):
            for label, size in by_label(config, plan, stage, labels).items():
                assert sent.get(label, 0) == pytest.approx(size, abs=FEW_BYTES), (plan, stage, label)
            assert sent.get("", 0) < FEW_BYTES


def test_the_prediction_is_the_executors_own_form():
    for config, plan in DENSE:
        if plan.zero == 3 or plan.schedule == "zb_v" or plan.sequence_parallel:  # of which that form knows nothing
            continue
        layout = Layout(pp=plan.pp, dp=plan.dp, cp=plan.cp, tp=plan.tp)
        for stage in range(plan.pp):
            other = formulas.step_bytes(config, layout, stage, BATCH, zero=plan.zero)
            mine = traffic(config, plan, BATCH, rank=stage)
            assert [mine[axis].value for axis in ("pp", "tp", "cp", "data")] == pytest.approx(list(other.values()))
            assert part(config, plan, stage).numbers.all == formulas.parameters(config, layout, stage)


def test_held_bytes_are_the_predicted_ones(ranks):
    for result in ranks:
        for (config, plan), (stage, _, _, held, _, tensors) in zip((*DENSE, *MIXTURES), result, strict=True):
            terms = memory(config, plan, BATCH, rank=stage)
            padding = plan.data * tensors * 4 if plan.zero else 0  # Zero1 pads its vector
            assert held["weights"] == terms["weights"].value, (plan, stage)
            assert held["gradients"] == terms["gradients"].value
            counts = held["optimizer"] - terms["optimizer"].value
            assert 0 <= counts <= STEP_COUNT_BYTES * tensors + padding


def test_what_autograd_keeps_is_the_predicted_peak(ranks):
    for result in ranks:
        for (config, plan), (stage, *_, peak, _) in zip((*DENSE, *MIXTURES), result, strict=True):
            if config.experts == 1:
                terms = memory(config, plan, BATCH, rank=stage)
                assert peak == terms["activations"].value + terms.get("loss"), (plan, stage)


def test_experts_send_what_even_loads_would_within_a_quarter(ranks):
    """How many tokens an expert gets is the router's choice, which no plan knows; over all ranks it evens out."""
    for place, (config, plan) in enumerate(MIXTURES, len(DENSE)):
        sent = [result[place][1].get(result[place][2]["ep"], 0) for result in ranks]
        predicted = [traffic(config, plan, BATCH, rank=result[place][0])["ep"].value for result in ranks]
        assert sum(sent) == pytest.approx(sum(predicted), rel=0.25)
