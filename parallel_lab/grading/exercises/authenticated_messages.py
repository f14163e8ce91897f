"""Chapter 19: messages that say who sent them, which one it is, and that nobody changed them (RFC 2104 for HMAC)."""

from parallel_lab.grading import sealed
from parallel_lab.grading.exercise import Exercise, on

ADVICE = {
    "right": "What rank 0 sealed, unchanged and in order, must open.",
    "changed": "Which bytes of the message does the code cover, and what about a message shorter than a code?",
    "key": "Rank 1 knows your function, and not the key. What can it not compute, then?",
    "state": "A message that was refused must leave the receiver as it was, or a stranger puts the two out of step.",
    "again": "An old message has a right code. What would have to be in the code so that it is right once?",
    "order": "The receiver knows how many messages it has taken. Which one is the next, and the only one?",
    "splice": "A number that travels beside the code, and is not in it, can be exchanged.",
    "own": "Both ends have the same key, and both count from 0. What tells a message from its answer?",
    "elsewhere": "Here one key serves several pairs. Whom is the message from, and for whom?",
    "both": "Each direction counts for itself: a rank may send three before it opens one.",
    "long": "A code has 32 bytes. 64 more than the payload are enough.",
    "value": "What is taken is returned as bytes. Whatever else is returned is no refusal: raise a ValueError.",
}
right = sealed.opens_right(ADVICE)

EXERCISE = Exercise(
    name="authenticated_messages",
    given=sealed.key_and_payloads,
    drive=sealed.relayed,
    device="cpu",
    settings={"lengths": (24, 24, 24)},
    tests={
        # Step 1
        "What rank 0 seals, rank 2 opens, at any length": on(3, right, look="arrives", lengths=(1, 40, 0, 1000)),
        "A changed, cut or made-up message is refused": on(3, right, look="changes"),
        # Step 2
        "A message counts once": on(3, right, look="again"),
        "None comes before its turn, and none is missing": on(3, right, look="order"),
        # Step 3
        "Both ranks send, each at its own pace": on(3, right, look="both"),
        "A rank's own message, or one for another rank, is refused": on(3, right, look="names"),
    },
)
