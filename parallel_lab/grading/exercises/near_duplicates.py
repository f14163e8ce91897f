"""Chapter 17: near duplicates over ranks by MinHash and LSH (Broder 1997; Indyk and Motwani 1998)."""

from parallel_lab.grading import resembling
from parallel_lab.grading.exercise import Exercise, cases, on

ACROSS = "Equal bands of two ranks must meet at one owner, found by a key that is the same number in every process."
BANDS = "A band agrees with probability J^rows. In how many bands may two documents meet?"
VERIFY = "A shared band makes a candidate. What is the index of the two sets themselves, and who has both?"
KEYS = "A key and a document's number for each band, to the owner of the key: nobody else needs to hear of it."

finds = resembling.finds(ACROSS, BANDS, VERIFY)

EXERCISE = Exercise(
    name="near_duplicates",
    given=resembling.documents,
    drive=resembling.find,
    expected=resembling.pairs,
    device="cpu",
    settings={"documents": 80, "twins": 16, "bands": 16, "rows": 4, "least": 0.8, "shares": (1,)},
    tests={
        "Near duplicates are found, also on different ranks, at 1 to 4 ranks": on((2, 1, 3, 4), finds),
        "Pairs that only share a band are not returned": on(3, finds, relatives=16),
        "Ranks with few documents or none take part": on(cases("ranks shares", (3, (3, 0, 1)), (4, (1, 5))), finds),
        "Keys travel to their owners, and signatures nowhere": on(
            4, finds, resembling.sends_keys(KEYS), documents=320, relatives=8
        ),
    },
)
