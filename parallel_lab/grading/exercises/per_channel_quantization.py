"""Chapter 13: a linear in 8 bits, per output channel, its inputs calibrated (Jacob et al. 2018; Nagel et al. 2021)."""

import torch

from parallel_lab.grading import expect, quantized
from parallel_lab.grading.exercise import Exercise, on

TENSOR = "That is one scale for the whole weight: its largest row makes the steps of all others wide. One a row."
DIM = "That is a scale for each input. The numbers that an output sums up share a scale: they stand in one row."
FLOAT = "Rounded numbers in floating point are as large as before. Store the integers, and decode where you compute."
TESTED = "That range has the test inputs in it. Calibration is training: the training batches alone may decide it."
BARE = "That grid has no zero point: without one it begins at 0, and what is below is lost. Which code is the number 0?"
REACH = "That range does not reach to 0, which needs a code of its own: padding and what a ReLU gives are exact zeros."
WRAPS = "Codes outside 0 to 255 were cut to their low 8 bits: a number just above the range becomes the smallest. Clip."
SHIFTED = "Those are sums of codes. A code is off by the zero point: subtract it, or its product with the row's sum."


def _seen(given: quantized.Given) -> torch.Tensor:
    return torch.stack(given.train)


def _ends(x: torch.Tensor) -> tuple[float, float]:
    return x.min().item(), x.max().item()


def _raw(given: quantized.Given, right: dict) -> torch.Tensor:
    return torch.round(given.test / right["input_scale"]) + right["input_zero"]


MISTAKES = {
    TENSOR: ("scale", lambda given, right: torch.full_like(right["scale"], given.weight.abs().max().item() / 127)),
    DIM: ("scale", lambda given, right: given.weight.abs().amax(0) / 127),
    FLOAT: ("codes", lambda given, right: float),
    TESTED: ("input_scale", lambda given, right: quantized.grid(*_ends(torch.stack([*given.train, given.test])))[0]),
    "The test inputs alone decided that range. " + TESTED.split(". ")[1]: (
        "input_scale",
        lambda given, right: quantized.grid(*_ends(given.test))[0],
    ),
    REACH: ("input_scale", lambda given, right: (_seen(given).max() - _seen(given).min()).item() / 255),
    BARE: ("input_zero", lambda given, right: 0),
    WRAPS: ("input_codes", lambda given, right: (_raw(given, right).long() % 256).to(torch.uint8)),
    SHIFTED: (
        "outputs",
        lambda given, right: (
            (right["input_codes"].long() @ right["codes"].T.long()) * (right["input_scale"] * right["scale"])
        ),
    ),
}
weights = quantized.returns("scale", "codes", mistakes=MISTAKES)
inputs = quantized.returns("input_scale", "input_zero", mistakes=MISTAKES)
outputs = quantized.returns("input_codes", "outputs", mistakes=MISTAKES)

EXERCISE = Exercise(
    name="per_channel_quantization",
    given=quantized.drawn,
    expected=quantized.expected,
    device="cpu",
    always=(expect.keeps_input(),),
    tests={
        # Step 1
        "The weight is int8 codes, with a scale for each output channel": on(3, weights),
        # Step 2
        "The inputs' grid comes from the training batches": on(3, weights, inputs),
        "Inputs of one sign: 0 has a code of its own": on(2, weights, inputs, signs=(1, -1)),
        # Step 3
        "Test inputs are clipped to that grid, and outputs are sums of codes": on(3, weights, inputs, outputs),
    },
)
