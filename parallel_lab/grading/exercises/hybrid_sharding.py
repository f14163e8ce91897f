"""Chapter 06: shards within a node, copies across nodes (Zhao et al. 2023, "PyTorch FSDP", section 3.2.2)."""

from parallel_lab.grading import expect, oracles, schedule, sharding
from parallel_lab.grading.exercise import Exercise, changed_on, on

WIDTH, STEPS = 240, 2
LAYOUTS = ((1, 1), (1, 2), (2, 1), (2, 2), (3, 2))  # nodes, and ranks of each
SMALL = "Nodes need the sum of one part from each other, and each rank of a node may carry its own part."
ONCE = "Within a node: an all-gather of the weights and a reduce-scatter of the gradient. Across: the part alone."
ALONE = "Each node has its own mean: which ranks of other nodes have the same part?"
DIVIDE = "A reduce-scatter and an all-reduce sum. Over how many ranks, together?"


def layout(nodes: int, per_node: int) -> dict:
    """The settings for so many nodes."""
    return {"ranks": nodes * per_node, "per_node": per_node}


def sends(nodes: int, per_node: int) -> list:
    """What a rank and a node send in two steps."""
    size = 8 * WIDTH
    across = 2 * (nodes - 1) / nodes * size / per_node
    bytes_per_step = 2 * (per_node - 1) / per_node * size + across
    return on(
        [layout(nodes, per_node)],
        schedule.crosses("one all-reduce of each part sends", per_node * across, SMALL),
        expect.sends("two collectives in its node and one across send", lambda n: STEPS * bytes_per_step, advice=ONCE),
    )


shard = "the shard that it returned"
alone = expect.unlike(shard, {"each node took the mean of its own ranks alone": {"alone": True}}, ALONE)
divided = expect.unlike(shard, {"the sum was divided by the ranks of a node": {"divisor": 2}}, DIVIDE)

EXERCISE = Exercise(
    name="hybrid_sharding",
    device="cpu",
    given=sharding.batches_of_steps,
    drive=sharding.train_in_nodes,
    expected=oracles.in_nodes,
    settings={"width": WIDTH, "steps": STEPS, "lr": 0.5, "per_node": 2},
    tests={
        # Step 1
        "Two steps are those of one process, on 1 to 3 nodes of 1 or 2 ranks": (
            on([layout(2, 2)], alone, divided, expect.equals())
            + on([layout(*each) for each in LAYOUTS], expect.equals())
            + changed_on(4)
        ),
        # Step 2
        "Between nodes only the parts travel, once per step": sends(2, 2) + sends(3, 2),
    },
)
