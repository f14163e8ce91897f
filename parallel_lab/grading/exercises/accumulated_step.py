"""Chapter 06: gradient accumulation with sharded gradients (Rajbhandari et al. 2020, "ZeRO", sections 5.2 and 7.2)."""

from parallel_lab.grading import drivers, expect, oracles, schedule, sharding
from parallel_lab.grading.exercise import Exercise, on

LAYERS, LAYER_BYTES = 6, (32 * 32 + 32) * 8
WHOLE, PART = LAYERS * LAYER_BYTES, LAYERS * LAYER_BYTES // 2  # at 2 ranks
MICROBATCHES = 3
MEAN = "The mean over the microbatches of all ranks; then every rank has all parameters."
WHOLES = "Accumulate in .grad, and nowhere else: what else has the size of all gradients?"
PARTS = "Of a microbatch's gradients only this rank's part may stay: reduce-scatter them, and let the whole ones go."
EARLY = "A gradient is complete long before backward() returns: register_post_accumulate_grad_hook says when."
ONCE = "Microbatches add up in .grad: reduce the sum, once per step."
EACH = "One reduce-scatter of the gradients per microbatch, and one all-gather of the parameters per step."


WIDE = {"widths": (32,) * (LAYERS + 1), "batches": MICROBATCHES, "microbatches": MICROBATCHES}
ROOM = 4000  # for activations and losses
BETWEEN, WITHIN = "between two microbatches", "in the backward of layer {}"
LIMITS = (("between", WHOLE + ROOM, BETWEEN, "the gradients are", WHOLES),)
PART_LIMITS = (
    ("between", PART + ROOM, BETWEEN, "1/n of the gradients is", PARTS),
    ("layer_backward", PART + 2 * LAYER_BYTES + ROOM, WITHIN, "its part and two layers' gradients are", EARLY),
)
ONE, ALL = ({"reduce_each": each, "limits": limits} | WIDE for each, limits in ((False, LIMITS), (True, PART_LIMITS)))
scatters = expect.forbids("all_reduce", advice="Each rank updates its part: it needs the sum of that part alone.")


def travels(times: int, what: str, advice: str, least: int = 2):
    """A step sends (n-1)/n of the parameters `times` times."""
    moved = WHOLE / 2
    return expect.sends(
        what, lambda n: times * moved, lambda n: least * moved, advice=advice, slack=100, between=expect.STEP
    )


EXERCISE = Exercise(
    name="accumulated_step",
    given=drivers.batches,
    drive=sharding.accumulate,
    expected=oracles.accumulated,
    settings={"widths": (5, 7, 3), "rows": (3,), "batches": 4, "microbatches": 2, "limits": (), "reduce_each": False},
    always=(
        schedule.runs_microbatches(),
        expect.equals({"parameter": MEAN, "gradient is left": "The next step begins without gradients."}),
    ),
    tests={
        # Step 1
        "Reduced once, two steps end where one process ends, at 1, 3 and 4 ranks": on((1, 3, 4)),
        "A step sends 2 (n-1)/n of the parameters, however many microbatches it has": on(
            2, scatters, travels(2, "one reduce-scatter and one all-gather send", ONCE), expect.holds("between"), **ONE
        ),
        # Step 2
        "Reduced each time, two steps end there too, at 3 ranks": on(3, reduce_each=True),
        "Between two microbatches a rank holds 1/n of the gradients; m + 1 times (n-1)/n are sent": on(
            2,
            expect.holds("between"),
            scatters,
            travels(MICROBATCHES + 1, "three reduce-scatters and one all-gather send", EACH, MICROBATCHES + 1),
            **ALL,
        ),
        # Step 3
        "Within backward a whole gradient is gone as soon as it is complete": on(2, expect.holds(), **ALL),
    },
)
