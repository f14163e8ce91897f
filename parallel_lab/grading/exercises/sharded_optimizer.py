"""Chapter 06: an optimizer whose state is cut over the ranks (Rajbhandari et al. 2020, "ZeRO", section 5.1)."""

import torch

from parallel_lab.grading import drivers, expect, oracles
from parallel_lab.grading.exercise import Exercise, cases, changed_on, on

ADAM = (torch.optim.AdamW, (("lr", 0.05), ("weight_decay", 0.1)))
MOMENTUM = (torch.optim.SGD, (("lr", 0.05), ("momentum", 0.9)))
STEPPED = "After step() every rank has all parameters, as the optimizer in one process leaves them."
AVERAGED = "The gradients are averaged already: only what a rank has updated has to travel."
WHO = "1/n of two moments, a copy of the parameters and one of the gradients is"
KEPT = "Who holds both moments of all parameters, or a whole copy of them, does not shard."
ZERO = "Clear the gradients of the parameters that you were given."
SENDS = "an all-gather of the parameters sends"
BIG_BYTES = (9 + 300 * 40 + 50) * 8
gathers = expect.sends(SENDS, lambda n: (n - 1) * BIG_BYTES / n, advice=AVERAGED, slack=64, between=expect.STEP)
# A rank may keep a shard of the parameters, one of the gradients, and two moments. One tensor is nearly everything:
# whole tensors cannot be shared out evenly.
KEEPS, SHAPES = ("beside parameters and gradients", WHO, KEPT), ((9,), (300, 40), (5, 10))
LIMITS = {n: (("end", 4 * BIG_BYTES / n + 2000, *KEEPS),) for n in (3, 4)}
BIG = cases("ranks shapes limits", *((n, SHAPES, limits) for n, limits in LIMITS.items()))
ALIKE = {"shapes": ((50, 20),) * 12, "limits": (("end", 4 * 12_000 * 8 / 4 + 2000, *KEEPS),)}  # at 4 ranks

EXERCISE = Exercise(
    name="sharded_optimizer",
    given=drivers.values_and_gradients,
    drive=drivers.step_optimizer,
    expected=oracles.one_optimizer,
    settings={"shapes": ((4, 5), (7,), (3, 2, 2)), "optimizer": ADAM, "limits": (("end", 10_000, *KEEPS),)},
    always=(expect.equals({"parameter": STEPPED, "gradient": ZERO}),),
    tests={
        # Step 1
        "AdamW and SGD with momentum step as in one process, at 1 to 4 ranks": (
            on((1, 2)) + on((3, 4), **ALIKE) + on(2, optimizer=MOMENTUM)
        ),
        "Of tensors of one size, each rank keeps the state of 1/n": on(4, expect.holds(), **ALIKE),
        # Step 2
        "Each rank keeps 1/n of the state, even where one tensor is nearly everything": on(BIG, expect.holds()),
        "Sizes that do not divide by the number of ranks work, even fewer elements than ranks": (
            on(4, shapes=((2,), (1,))) + on(2)
        ),
        # Step 3
        "Each rank sends (n-1)/n of the parameters per step, and they carry the data": on(BIG, gathers) + changed_on(2),
    },
)
