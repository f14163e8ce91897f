"""Chapter 06: an optimizer whose state is cut over the ranks (Rajbhandari et al. 2020, "ZeRO", section 5.1).

Each rank keeps the state of 1/n of the flat parameter vector, updates that part, and an all-gather hands everybody the
rest: Adam's two moments take 2/n of the parameters' bytes a rank, for (n-1)/n of the parameters sent a step.
"""

import torch

from parallel_lab.grading.drivers import step_optimizer, values_and_gradients
from parallel_lab.grading.exercise import Exercise, on, test
from parallel_lab.grading.expectations import ITEM_BYTES, STEP, equals, heard, holds, sends
from parallel_lab.grading.oracles import TRAINED, one_optimizer

MOMENTUM = (torch.optim.SGD, (("lr", 0.05), ("momentum", 0.9)))
BIG_BYTES = (9 + 300 * 40 + 50) * ITEM_BYTES


def big(ranks: int) -> dict:
    """One tensor is nearly everything: whole tensors cannot be shared out evenly.

    A rank may keep a shard of the parameters, one of the gradients, and two moments.
    """
    return {"shapes": ((9,), (300, 40), (5, 10)), "limits": (("end", 4 * BIG_BYTES / ranks + 2000),)}


STEPPED = "After step() every rank has all parameters, as the optimizer in one process leaves them."
AVERAGED = "The gradients are averaged already: only what a rank has updated has to travel."
WHO = "1/n of two moments, a copy of the parameters and one of the gradients is"
KEPT = "Who holds both moments of all parameters, or a whole copy of them, does not shard."
right = equals({"parameter": STEPPED, "gradient": "Those of the parameters that you were given."}, TRAINED)
shares = holds(("end", "beside parameters and gradients", WHO, KEPT))
gathers = sends(
    "an all-gather of the parameters sends",
    lambda case: (case.ranks - 1) * BIG_BYTES / case.ranks,
    advice=AVERAGED, slack=64, between=STEP,
)  # fmt: skip

EXERCISE = Exercise(
    name="sharded_optimizer",
    title="An optimizer with sharded state (ZeRO-1)",
    level="medium",
    minutes=40,
    notebook="06_sharded_data_parallel",
    given=values_and_gradients,
    drive=step_optimizer,
    expected=one_optimizer,
    settings={
        "shapes": ((4, 5), (7,), (3, 2, 2)),
        "optimizer": (torch.optim.AdamW, (("lr", 0.05), ("weight_decay", 0.1))),
        "limits": (("end", 10_000),),
    },  # fmt: skip
    tests=(
        test(
            "AdamW and SGD with momentum step as in one process, at 1 to 4 ranks",
            *(on((1, 2), right), on(3, right, **big(3)), on(4, right, **big(4)), on(2, right, optimizer=MOMENTUM)),
        ),
        test(
            "Sizes that do not divide by the number of ranks work, even fewer elements than ranks",
            *(on(4, right, shapes=((2,), (1,))), on(2, right)),
        ),
        test(
            "Each rank keeps 1/n of the state, even where one tensor is nearly everything",
            *(on(n, shares, **big(n)) for n in (3, 4)),
        ),
        test(
            "Each rank sends (n-1)/n of the parameters a step, and they carry the data",
            *(on(n, gathers, **big(n)) for n in (3, 4)),
            on(2, heard(), changed=True),
        ),
    ),
)
