"""Chapter 17: a shuffle of shards that come as streams, over ranks, with a bounded buffer."""

from parallel_lab.grading import streamed
from parallel_lab.grading.exercise import Exercise, cases, on

LEFT = "When the last shard is at its end, what is still in the buffer?"
SHARE = "Each rank knows all shards, its own number and the world: which shards are its own?"
BOUND = "Let each sample that comes in push one out. Who collects first and shuffles then, holds it all."
INSIDE = "The buffer should not know where a shard ends: samples of the next one come in while old ones still wait."
SHARDS = "The order of the shards is the cheapest shuffle of all, and reads nothing."
EPOCH = "From what are your random numbers drawn? The epoch should be in it."
RESUME = "The same seed, epoch and rank draw the same order. What has to be left out of it, and before which step?"

once = streamed.once(LEFT, SHARE)

EXERCISE = Exercise(
    name="streaming_shuffle",
    given=streamed.shards,
    drive=streamed.stream,
    settings={"shards": 12, "sizes": (20, 30), "buffer": 12, "epochs": 3},
    tests={
        "Every sample comes once, on one rank, at 1 to 4 ranks": on((1, 2, 3, 4), once),
        "No rank holds more than its buffer": on((1, 4), streamed.bounded(BOUND)),
        "Samples of different shards mix, and shards come in another order": on(
            cases("ranks sizes buffer", (2, (20, 30), 12), (1, (9, 11), 12)), streamed.mixed(INSIDE, SHARDS)
        ),
        "Each epoch has an order of its own": on(2, streamed.anew_each_epoch(EPOCH)),
        "After a restart the same order goes on": on((1, 3), streamed.goes_on(RESUME)),
    },
)
