"""Chapter 06: an optimizer whose state is cut over the ranks (Rajbhandari et al. 2020, "ZeRO", section 5.1).

Each rank keeps the state of 1/n of the flat parameter vector, updates that part, and an all-gather hands everybody the
rest: Adam's two moments take 2/n of the parameters' bytes a rank, for (n-1)/n of the parameters sent a step.
"""

import torch

from parallel_lab.grading import drivers, oracles
from parallel_lab.grading import expectations as expect
from parallel_lab.grading.exercise import Exercise, changed_on, on, test

ADAM = (torch.optim.AdamW, (("lr", 0.05), ("weight_decay", 0.1)))
MOMENTUM = (torch.optim.SGD, (("lr", 0.05), ("momentum", 0.9)))
BIG_BYTES = (9 + 300 * 40 + 50) * 8
# One tensor is nearly everything: whole tensors cannot be shared out evenly. A rank may keep a shard of the parameters,
# one of the gradients, and two moments.
BIG = {n: {"shapes": ((9,), (300, 40), (5, 10)), "limits": (("end", 4 * BIG_BYTES / n + 2000),)} for n in (3, 4)}
STEPPED = "After step() every rank has all parameters, as the optimizer in one process leaves them."
AVERAGED = "The gradients are averaged already: only what a rank has updated has to travel."
WHO = "1/n of two moments, a copy of the parameters and one of the gradients is"
KEPT = "Who holds both moments of all parameters, or a whole copy of them, does not shard."
ZERO = "Clear the gradients of the parameters that you were given."
SENDS = "an all-gather of the parameters sends"
kept = expect.holds(("end", "beside parameters and gradients", WHO, KEPT))
gathers = expect.sends(SENDS, lambda n: (n - 1) * BIG_BYTES / n, advice=AVERAGED, slack=64, between=expect.STEP)

EXERCISE = Exercise(
    name="sharded_optimizer",
    given=drivers.values_and_gradients,
    drive=drivers.step_optimizer,
    expected=oracles.one_optimizer,
    settings={"shapes": ((4, 5), (7,), (3, 2, 2)), "optimizer": ADAM, "limits": (("end", 10_000),)},
    always=(expect.equals({"parameter": STEPPED, "gradient": ZERO}, oracles.TRAINED),),
    tests=(
        test(
            "AdamW and SGD with momentum step as in one process, at 1 to 4 ranks",
            *(on((1, 2)), on(3, **BIG[3]), on(4, **BIG[4]), on(2, optimizer=MOMENTUM)),
        ),
        test(
            "Sizes that do not divide by the number of ranks work, even fewer elements than ranks",
            *(on(4, shapes=((2,), (1,))), on(2)),
        ),
        test(
            "Each rank keeps 1/n of the state, even where one tensor is nearly everything",
            *(on(n, kept, **big) for n, big in BIG.items()),
        ),
        test(
            "Each rank sends (n-1)/n of the parameters a step, and they carry the data",
            *(on(n, gathers, **big) for n, big in BIG.items()),
            changed_on(2),
        ),
    ),
)
