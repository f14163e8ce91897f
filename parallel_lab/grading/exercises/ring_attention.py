"""Chapter 10: attention whose keys and values go round a ring (Liu et al. 2023, section 3)."""

from math import prod

from parallel_lab.grading import contexts, expect
from parallel_lab.grading.exercise import Exercise, changed_on, on

SHAPE, LARGE = (2, 2, 6, 4), (2, 4, 32, 16)  # batch, heads, tokens of a rank, width of a head
LARGE_TENSOR = prod(LARGE) * 8
WHERE = "A shard of an earlier rank is seen whole, a later one not at all, one's own from the diagonal down."
NOTHING = (
    "A query that sees no key of a block has a mean of NaN and a log-sum-exp of -inf: its weight is 0, or skip it."
)
WEIGHTS = "A block counts by the sum of its weights: exp(lse of the block - lse of both)."
OVERFLOW = "exp of a log-sum-exp overflows above 709. Subtract the larger first, or use torch.logaddexp and sigmoid."
GONE = "What was attended to is passed on and let go: no rank needs all keys and values at once."
SEEN = "Each key is seen by queries of several ranks: its gradient is the sum of what all of them say."
WHOLE = "Is the lse the one of all blocks? With a block's own, each block's weights add up to 1."
TWO = f"two shards of keys and values, {4 * LARGE_TENSOR / 1024:.0f} KiB, and three tensors like the query are"
SUMS = "Keys and values go round again, and with them the sum of their gradients: 2 (n-1) shards, or one more."
HOLDS = {"shape": LARGE, "limits": ((contexts.BLOCK, 7 * LARGE_TENSOR + 8192, "as a block begins,", TWO, GONE),)}


def shard_bytes(shape: tuple[int, ...] = SHAPE) -> int:
    """The keys and values of a rank."""
    return 2 * prod(shape) * 8


goes_round = expect.sends(
    "n - 1 shards of keys and values are",
    lambda n: (n - 1) * shard_bytes(),
    advice="Each rank needs each other rank's keys and values once; queries and outputs stay.",
    slack=100,
    between=contexts.FORWARD,
)
goes_back = expect.sends(
    "a ring of shards and one of their gradients send",
    lambda n: (2 * n - 1) * shard_bytes(),
    lambda n: 2 * (n - 1) * shard_bytes(),
    advice=SUMS,
    slack=100,
    between=contexts.BACKWARD,
)
mistakes = (
    expect.unlike(contexts.OUTPUT, {"every block was masked from its diagonal down": {"every_diagonal": True}}, WHERE),
    expect.unlike(contexts.OUTPUT, {"the means of the blocks count the same": {"averaged": True}}, WEIGHTS),
)
right = expect.equals({contexts.OUTPUT: WHERE, "query": WHOLE, "key": SEEN, "value": SEEN})

EXERCISE = Exercise(
    name="ring_attention",
    given=contexts.shards,
    drive=contexts.attend,
    expected=contexts.whole,
    settings={"shape": SHAPE, "scale": 1.0, "limits": (), "forward": True},
    tests={
        # Step 1
        "Each rank's part of the output is that of one process, at 1 to 4 ranks": on(
            (2, 1, 3, 4), contexts.is_finite(NOTHING), *mistakes, right
        ),
        # Step 2
        "Scores of thousands give the same": on(3, contexts.is_finite(OVERFLOW), right, scale=1000.0),
        # Step 3
        "Forward sends n - 1 shards of keys and values, and they carry the data": on(4, goes_round) + changed_on(2),
        "A rank holds two shards at a time": on(4, expect.holds(), **HOLDS),
        # Step 4
        "Each rank's part of the gradients is that of one process": on((3, 1), right, forward=False),
        "Backward sends the shards again, and the sums of their gradients": on(4, goes_back, forward=False),
    },
)
