"""Chapter 01: what a training step of a GPT holds and computes (Kaplan et al. 2020, section 2.1)."""

from parallel_lab.grading import counted, miscounts
from parallel_lab.grading.exercise import Exercise, on

parameters = counted.counts("parameters", mistakes=miscounts.OF_SIZES)
state_bytes = counted.counts("state_bytes", mistakes=miscounts.OF_STATE)
flops = counted.counts("flops", mistakes=miscounts.OF_FLOPS)
causal_flops = counted.counts("causal_flops", mistakes=miscounts.OF_CAUSAL)

EXERCISE = Exercise(
    name="step_budget",
    given=counted.shapes,
    expected=counted.counted,
    tests={
        # Step 1
        "Parameters, and bytes of state, of four random models": on(4, parameters, state_bytes),
        "The same for GPT-3, which no rank can build": on(1, parameters, state_bytes, config=counted.GPT3),
        # Step 2
        "FLOPs of a step, attention over the full square": on(4, flops),
        "FLOPs of a step, attention over what a token sees": on(4, causal_flops),
        "FLOPs of a step of GPT-3": on(1, flops, config=counted.GPT3),
    },
)
