"""`authenticated_messages`: a checksum, no number, seen codes, a number outside, a count too early, no names."""

import hashlib
import hmac

import pytest
from grading import assert_ends_a_step, assert_found_out, assert_passes, by_value

by_value(__name__)
NAME = "authenticated_messages"


def answer(keyed=True, number="inside", names=True, early=False):
    """A right answer, or one with a part of it done in another way."""

    def changed(key, rank, peer):
        counts, seen = {"sent": 0, "received": 0}, set()

        def code(sender, receiver, count, payload):
            said = (
                f"{sender if names else ''} {receiver if names else ''} {count if number == 'inside' else ''}".encode()
            )
            if not keyed:
                return hashlib.sha256(said + payload).digest()
            return hmac.digest(key, said + payload, "sha256")

        def seal(payload):
            count, counts["sent"] = counts["sent"], counts["sent"] + 1
            head = count.to_bytes(8, "big") if number == "outside" else b""
            return head + payload + code(rank, peer, count, payload)

        def open_(message):
            head = 8 if number == "outside" else 0
            payload, found = message[head:-32], message[-32:]
            expected = counts["received"]
            if early:
                counts["received"] += 1
            if number == "outside" and int.from_bytes(message[:8], "big") != expected:
                raise ValueError("another number")
            if not hmac.compare_digest(found, code(peer, rank, expected, payload)) or found in seen:
                raise ValueError("refused")
            if number == "seen":
                seen.add(found)
            if not early:
                counts["received"] += 1
            return payload

        return seal, open_

    return changed


CHEATS = [  # (answer, the test that sees through it, what it says)
    (
        answer(keyed=False),
        1,
        "rank 2 was given a message that was sealed with a made-up key and took .*\n.*not the key",
    ),
    (answer(early=True), 1, "after all of these message 0, as it was sealed, and refused it.*\n.*out of step"),
    (answer(number="none"), 2, "message 0 for the second time and took payload 0.*\n.*right once"),
    (answer(number="seen"), 3, "message 1, before message 0, and took payload 1.*\n.*the next, and the only one"),
    (answer(number="outside"), 3, "bytes of message 1, then the rest of message 0, and took payload .*\n.*not in it"),
    (answer(names=False), 5, "what rank 2 itself had sealed for rank 0 and took payload 0.*\n.*from its answer"),
]


@pytest.mark.parametrize(
    ("cheat", "place", "said"), [pytest.param(*case, id=str(number)) for number, case in enumerate(CHEATS)]
)
def test_cheat_fails_with_its_message(cheat, place, said):
    assert_found_out(NAME, cheat, place, said)


def with_everything_in_front(key, rank, peer):
    """Not a cheat: a header that travels, and codes of another hash."""
    counts = {"out": 0, "in": 0}

    def head(sender, receiver, number):
        return b"%4d%4d%8d" % (sender, receiver, number)

    def seal(payload):
        said = head(rank, peer, counts["out"]) + payload
        counts["out"] += 1
        return hashlib.blake2b(said, key=key).digest()[:32] + said

    def open_(message):
        found, said = message[:32], message[32:]
        if said[:16] != head(peer, rank, counts["in"]):
            raise ValueError(said[:16])
        if not hmac.compare_digest(found, hashlib.blake2b(said, key=key).digest()[:32]):
            raise ValueError("changed")
        counts["in"] += 1
        return said[16:]

    return seal, open_


def for_whom_alone(key, rank, peer):
    """The code names the receiver, and not the sender."""
    ends, reverse = (
        answer(names=False)(key + b"%d" % peer, rank, peer),
        answer(names=False)(key + b"%d" % rank, rank, peer),
    )
    return ends[0], reverse[1]


def test_what_is_no_pair_of_functions_and_no_refusal_is_said():
    def returns_none(key, rank, peer):
        seal, opens = with_everything_in_front(key, rank, peer)

        def open_(message):
            try:
                return opens(message)
            except ValueError:
                return None

        return seal, open_

    assert_found_out(NAME, lambda key, rank, peer: None, 0, "returned None: expected two functions")
    assert_found_out(
        NAME, lambda *given: with_everything_in_front(*given)[::-1], 0, "called with a payload of .* to seal"
    )
    assert_found_out(NAME, returns_none, 1, "returned None instead of bytes; it should have refused it\n.*no refusal")
    assert_found_out(NAME, for_whom_alone, 5, "as if rank 1 had sent it and took payload 0")


def test_another_right_answer_passes():
    assert_passes(NAME, with_everything_in_front)


def test_answer_of_a_step_passes_it_and_fails_the_next():
    assert_ends_a_step(NAME, 1, answer(number="none", names=False), "message 0 for the second time")
    assert_ends_a_step(NAME, 2, answer(names=False), "what rank 2 itself had sealed")
