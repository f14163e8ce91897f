"""Chapter 12: dynamic loss scaling that skips on all ranks (Micikevicius et al. 2018; question AC5)."""

from math import inf

from parallel_lab.grading import expect, scales
from parallel_lab.grading.exercise import Exercise, cases, on

TRUE = "What was multiplied by the scale is divided by it, once, before anybody uses it."
SKIP = "A step that overflowed is left out: no step of the optimizer, not even with zeros, for it has momentum."
GROWS = "It doubles after `interval` clean steps in a row, is halved after an overflow, and then the count starts anew."
ALONE = "The others have finite gradients, step, and have other weights from then on. How do they hear of it?"
CLIP = "A norm is compared with a limit for gradients of their true size: which comes first?"
FLAG = "Whether something overflowed is one number. Who needs to know more?"

advice = {
    scales.TAKEN: SKIP,
    scales.GRADIENTS: TRUE,
    scales.SCALES: GROWS,
    scales.CLIPPED: CLIP,
    scales.WEIGHTS: SKIP,
}
right = expect.equals(advice)
together = expect.unlike(scales.TAKEN, {"a rank that overflowed left its step out alone": {"mistake": "alone"}}, ALONE)
one_flag = expect.sends(
    "{} flags of 8 bytes take", lambda n: (n - 1) * 8, lambda n: (n - 1) / n, advice=FLAG, times="steps"
)

SIZE = (scales.TAKEN, scales.GRADIENTS, scales.WEIGHTS)
SPREAD = cases("ranks broken", (2, ((1, 2),)), (3, ((2, 1), (0, 5), (1, 5))))

EXERCISE = Exercise(
    name="dynamic_scale",
    given=scales.gradients_of_steps,
    drive=scales.train_scaled,
    expected=scales.scaled_as_one,
    device="cpu",
    settings={
        "shapes": ((3,), (2, 4)),
        "steps": 9,
        "scale": 2.0**10,
        "interval": 3,
        "max_norm": inf,
        "broken": (),
        "looks": (scales.SCALES, scales.TAKEN, scales.GRADIENTS, scales.WEIGHTS),
    },
    tests={
        # Step 1
        "The optimizer steps with gradients of their true size": on(1, right, looks=SIZE, interval=99),
        "A step with an infinity or a NaN is left out": on(1, right, looks=SIZE, interval=99, broken=((0, 2), (0, 3))),
        # Step 2
        "The scale backs off until nothing overflows": on(1, right, scale=2.0**20, interval=99),
        "It grows after `interval` clean steps in a row": on(1, right, steps=14, broken=((0, 2), (0, 7))),
        # Step 3
        "All ranks leave a step out, whoever overflowed": on(SPREAD, together, right),
        "One flag a step is sent": on(4, right, one_flag, broken=((1, 3),)),
        # Step 4
        "Clipping sees gradients of their true size": on(
            SPREAD[1:], right, max_norm=0.5, looks=(scales.CLIPPED, scales.GRADIENTS, scales.SCALES, scales.WEIGHTS)
        ),
    },
)
