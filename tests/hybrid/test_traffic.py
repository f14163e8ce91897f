"""What ranks send by axis is the closed form, and what they hold."""

import dataclasses

import pytest
from shared_hybrid import ADAM, BATCH, GPT2, LLAMA, batches, whole_model

from parallel_lab import launch
from parallel_lab.hybrid import Layout, formulas, parallelize, train_step
from parallel_lab.trace import recorder

CASES = [
    (GPT2, Layout(pp=2, dp=2, tp=2), 1),
    (GPT2, Layout(pp=2, dp=2, tp=2), 0),
    (dataclasses.replace(GPT2, vocab=258, tied=False, layers=3), Layout(pp=2, tp=4), 1),
    (LLAMA, Layout(pp=2, dp=1, cp=2, tp=2), 0),
    (LLAMA, Layout(pp=1, dp=2, cp=2, tp=2), 1),
    (GPT2, Layout(pp=4, dp=2), 1),
]
FEW_BYTES = 100  # flags, the loss and the norm


def sent():
    """For each case the rank's stage, the numbers that it holds, and what it sends by label in the second step."""
    found = []
    for config, layout, zero in CASES:
        made = parallelize(whole_model(config), layout, zero=zero, microbatches=4 // layout.dp, **ADAM)
        first, second, _ = batches(config)
        train_step(made, *first)  # its pipeline also tells shapes
        before = len(recorder().spans)
        train_step(made, *second)
        labels: dict[str, int] = {}
        for span in recorder().spans[before:]:
            labels[span.axis] = labels.get(span.axis, 0) + span.sent_bytes
        names = {axis: getattr(group, "axis", "") for axis, group in made.groups.items()}
        held = sum(p.numel() for p in made.named_parameters().values())
        found.append((made.place["pp"], held, labels, names))
    return found


def test_bytes_by_axis_are_the_closed_form():
    for result in launch(sent, ranks=8, timeout=120):
        for (config, layout, zero), (stage, held, labels, names) in zip(CASES, result, strict=True):
            assert held == formulas.parameters(config, layout, stage)
            expected: dict[str, float] = {}
            for axis, sent_bytes in formulas.step_bytes(config, layout, stage, BATCH, zero=zero, dtype_bytes=8).items():
                expected[names[axis]] = expected.get(names[axis], 0) + sent_bytes
            expected["pp"] = expected.get("pp", 0) - labels.get("tied", 0)
            for label, sent_bytes in expected.items():
                assert labels.get(label, 0) == pytest.approx(sent_bytes, abs=FEW_BYTES), (layout, zero, stage, label)
            assert labels.get("", 0) < FEW_BYTES


def test_three_of_four_axes_grow_with_the_batch():
    once, twice = (formulas.step_bytes(GPT2, Layout(pp=2, dp=2, tp=2), 0, batch) for batch in (BATCH, 2 * BATCH))
    tied = GPT2.vocab // 2 * GPT2.width * 4
    assert twice["pp"] - tied == 2 * (once["pp"] - tied)
    assert twice["tp"] == 2 * once["tp"] and twice["dp_cp"] == once["dp_cp"]
    with pytest.raises(ValueError, match="zero=3: expected 0 or 1"):
        formulas.step_bytes(GPT2, Layout(), 0, BATCH, zero=3)
