"""Chapter 15: gang scheduling with backfilling (EASY, Lifka 1995; questions B5 and D19)."""

from parallel_lab.grading import backfilling, promises
from parallel_lab.grading.exercise import Exercise, on
from parallel_lab.systems.scheduling import trace

# Numbers of GPUs and durations as on a real cluster, at most 32 GPUs a job.
KINDS = tuple((min(job.gpus, 32), job.duration_s) for job in trace.drawn("gavel", 400, seed=15))

# All GPUs are held, 5 of them for long; the head needs 6. Of the long jobs of one GPU, two may run beside it.
BESIDE_HEAD = ((5, 100), (3, 20), (6, 30), (1, 300), (1, 300), (1, 300))
# The first of the small jobs is over before the head could start: it takes nothing of what the head leaves.
OVER_BEFORE = ((5, 100), (3, 20), (6, 30), (1, 30), (1, 300), (1, 300))
PART = "A job that holds some of its GPUs does no work, and keeps them from others. Does the whole job fit?"
OVER = "Each job that starts takes GPUs from what was free. Is that counted before the next one is looked at?"
HEAD = "Whoever is first in line and fits has waited long enough. Is the line gone through in the order of arrival?"
SKIPS = (
    "A job behind the head starts and runs on when the head could start. When is it over at the latest, by its limit?"
)
SPARE = "Each of them alone would do no harm. How many GPUs does the head leave free, and who has them by now?"
WHEN = "Who fits and is over before the head could start takes nothing from it. When do running jobs end at the latest?"
BESIDE = "At its start the head leaves some GPUs free. Who needs no more may run on beside it; who is over takes none."

whole = promises.starts_whole(promises.WANTED, PART, OVER)
head = promises.starts_the_head(HEAD)
promised = promises.keeps_the_promise(SKIPS, SPARE)

EXERCISE = Exercise(
    name="gang_backfill",
    given=backfilling.lines,
    drive=backfilling.observe,
    device="cpu",
    settings={"clusters": 6, "gpus": 8, "most": 1.0, "kinds": (), "first": ()},
    tests={
        # Step 1
        "A job gets all of its GPUs or none, and no GPU is given away twice": on(1, whole),
        "Who is first in line and fits starts": on(1, whole, head),
        # Step 2
        "Nobody behind the head delays it, also where limits are up to ten times too long": on(
            ({"ranks": 1, "most": 1.0}, {"ranks": 1, "most": 10.0}), whole, head, promised
        ),
        "Who fits and is over before the head could start is let in": on(
            1, whole, head, promised, promises.fills_up(WHEN, BESIDE, beyond=False), most=3.0
        ),
        # Step 3
        "Who fits beside the head is let in as well, on small clusters and on a real one's jobs": on(
            (
                {"ranks": 1, "most": 1.2, "first": BESIDE_HEAD},
                {"ranks": 1, "most": 1.2, "first": OVER_BEFORE},
                {"ranks": 1, "most": 3.0, "clusters": 1, "gpus": 64, "kinds": KINDS},
            ),
            whole,
            head,
            promised,
            promises.fills_up(WHEN, BESIDE, beyond=True),
        ),
    },
)
