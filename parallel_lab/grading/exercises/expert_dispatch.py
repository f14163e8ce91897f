"""Chapter 10: tokens travel to the experts that they chose, and back (Lepikhin et al. 2020; Gale et al. 2022)."""

from parallel_lab.grading import expect, experts
from parallel_lab.grading.exercise import Exercise, cases, on

ORDER = "Rows come back as they left, expert after expert and not token after token. Which choice is each of them for?"
ROUTER = "The router learns through the weights alone: each is a factor of what its expert gave, its graph behind it."
THERE_AND_BACK = (
    "Autograd sees one rank. The gradient of rows that went to another rank lies there: it must travel back."
)
NOTHING = (
    "An expert that nobody chose has a gradient of zeros and not None, or ranks' optimizers and collectives come apart."
)
SOURCE = "Each rank drops by itself: of its own choices, an expert takes the first `capacity`. No other rank has a say."
STAYS = "A dropped choice adds zero, and the weights of the others stay as they are."
ONLY = "A row goes to the rank of its expert, and to nobody else: counts first, then splits of just that size."

gradients = {"the output": ORDER, "of the router": ROUTER, "of its tokens": THERE_AND_BACK, "": THERE_AND_BACK}
idle = gradients | {"": NOTHING}
shared = expect.unlike("the output", {"a capacity was one for all ranks together": {"shared": True}}, SOURCE)

EXERCISE = Exercise(
    name="expert_dispatch",
    given=experts.routed,
    drive=experts.dispatch,
    expected=experts.whole_experts,
    settings={"rows": (12, 7, 9), "width": 24, "hidden": 8, "each": 2, "k": 2},
    tests={
        # Step 1
        "Each token gets back the weighted sum over its experts, at 1 to 3 ranks": on(
            (2, 1, 3), expect.equals(ORDER), forward=True
        ),
        # Step 2
        "Gradients of router, tokens and experts are those of one process": on(3, expect.equals(gradients)),
        "Experts that nobody chose and ranks without tokens take part": on(
            cases("ranks rows crowded k", (2, (12, 7), 2, 1), (3, (5, 0, 4), 6, 1)), expect.equals(idle)
        ),
        # Step 3
        "With a capacity each rank drops the last of its own choices": on(
            3, shared, expect.equals(gradients | {"the output": STAYS}), capacity=3
        ),
        # Step 4
        "Rows travel to their experts' ranks and back, and nowhere else": on(
            4, expect.equals(gradients), experts.travels(ONLY)
        ),
    },
)
