"""Chapter 14: top-k with error feedback as a hook of DDP (Aji and Heafield 2017; Stich et al. 2018)."""

from parallel_lab.grading import compressed, expect
from parallel_lab.grading.exercise import Exercise, on

LONG, FEW = (3000,), 0.01  # a bucket of 3,000 elements, of which 30 travel
MEAN = (
    "What stands in the bucket is the mean over all ranks of what each sent: what counts for a rank that sent nothing?"
)
LATER = "What a rank does not send now it owes: where is it kept until the next step, and when is it added?"
OWN = "Each bucket has other parameters, so it owes something else. How does the hook know which bucket it has?"
WIDE = "1 + 1/512 is 1 in bfloat16. In which dtype must what is owed be kept, if little by little is to add up?"
LITTLE = "Numbers, and places of four bytes: zeros need not travel, and which bucket has 2^31 elements?"

adds = expect.unlike("step 0: bucket", {"the bucket has the sum over the ranks": {"sums": True}}, MEAN)
forgets = expect.unlike("step 1: bucket", {"what was not sent in step 0 is lost": {"forget": True}}, LATER)
mixes = expect.unlike("step 0: bucket", {"what one bucket owes was added to another": {"shared": True}}, OWN)

EXERCISE = Exercise(
    name="top_k_hook",
    given=compressed.gradients,
    drive=compressed.exchange,
    expected=compressed.sparse_means,
    settings={"sizes": (48, 48), "fraction": 0.125, "steps": 1},
    tests={
        # Step 1
        "The bucket has the mean of what ranks sent, at 1 to 3 ranks": on(
            (2, 1, 3), adds, expect.equals(MEAN), sizes=(48,)
        ),
        # Step 2
        "Numbers and places travel, and nothing else": on(
            4,
            expect.equals(MEAN),
            expect.sends(
                "its numbers and places, to all others, are",
                lambda n: (n - 1) * compressed.bytes_of(LONG, FEW),
                least=lambda n: (n - 1) * compressed.bytes_of(LONG, FEW, place_bytes=2),
                advice=LITTLE,
                slack=64,
                between=expect.STEP,
            ),
            sizes=LONG,
            fraction=FEW,
        ),
        # Step 3
        "What is left out comes later, bucket by bucket": on(
            3, mixes, forgets, expect.equals({"bucket": LATER}), steps=4
        ),
        "With gradients of 16 bits, what is owed adds up in 32": on(
            2, compressed.adds_up(WIDE), sizes=(64,), fraction=1 / 16, steps=62, narrow=True
        ),
    },
)
