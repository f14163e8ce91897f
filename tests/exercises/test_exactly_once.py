"""`exactly_once`: padding, a dropped rest, a rank's own seed or position, the epoch begun anew, one order for all."""

import random

import pytest
from grading import assert_ends_a_step, assert_found_out, assert_passes, by_value

by_value(__name__)
NAME = "exactly_once"


def order(samples, seed, epoch):
    return random.Random(f"{seed} {epoch}").sample(range(samples), samples)


def pads(samples, batch, seed, rank, ranks, state=None):
    """As `DistributedSampler`: each epoch is filled up to whole batches from its start."""
    step = state or 0
    while True:
        epoch, number = divmod(step, -(-samples // batch))
        row = order(samples, seed, epoch)
        row = (row + row)[number * batch :][:batch]
        step += 1
        yield row[rank * batch // ranks : (rank + 1) * batch // ranks], step


def drops(samples, batch, seed, rank, ranks, state=None):
    """Whole batches alone."""
    step = state or 0
    while True:
        epoch, number = divmod(step, samples // batch)
        row = order(samples, seed, epoch)[number * batch :][:batch]
        step += 1
        yield row[rank * batch // ranks : (rank + 1) * batch // ranks], step


def sequence(samples, batch, seed, rank, ranks, position, begin=lambda place: place, epochs=True, tell=None):
    while True:
        first, last = (position + part * batch // ranks for part in (rank, rank + 1))
        orders = {e: order(samples, seed, e * epochs) for e in range(first // samples, last // samples + 1)}
        position += batch
        state = tell(position, last - first) if tell else position
        yield [orders[place // samples][place % samples] for place in range(first, last)], state


def seed_of_the_rank(samples, batch, seed, rank, ranks, state=None):
    yield from sequence(samples, batch, seed + rank, rank, ranks, state or 0)


def one_order(samples, batch, seed, rank, ranks, state=None):
    yield from sequence(samples, batch, seed, rank, ranks, state or 0, epochs=False)


def epoch_anew(samples, batch, seed, rank, ranks, state=None):
    yield from sequence(samples, batch, seed, rank, ranks, (state or 0) * samples, tell=lambda p, _: p // samples)


def own_position(samples, batch, seed, rank, ranks, state=None):
    """Counts the rank's own samples, and takes the others to be as far."""
    own = state or 0
    for indices, _ in sequence(samples, batch, seed, rank, ranks, own * ranks):
        own += len(indices)
        yield indices, own


CHEATS = [  # (answer, the test that sees through it, what it says)
    (pads, 0, r"in epoch \d \d+ samples came twice or more, .*\n.*one endless sequence"),
    (drops, 0, r"in epoch \d \d+ samples came twice or more, .*\n.*one endless sequence"),
    (seed_of_the_rank, 0, r"2 ranks, .*in epoch 0 \d+ samples came twice or more"),
    (one_order, 1, r"epochs 0 and 1 have the same order.*\n.*what is it drawn from"),
    (epoch_anew, 2, r"restarts, .*: in epoch 0 \d+ samples came twice or more.*\n.*mean the same to 4 ranks and to 3"),
    (
        own_position,
        2,
        r"restarts, .*: in epoch \d \d+ samples came twice or more.*\n.*mean the same to 4 ranks and to 3",
    ),
]


@pytest.mark.parametrize(
    ("cheat", "place", "said"), [pytest.param(*case, id=str(number)) for number, case in enumerate(CHEATS)]
)
def test_cheat_fails_with_its_message(cheat, place, said):
    assert_found_out(NAME, cheat, place, said)


def in_turns(samples, batch, seed, rank, ranks, state=None):
    """Not a cheat: ranks take turns in a batch, and the state is a dict."""
    position = state["position"] if state else 0
    while True:
        places = range(position + rank, position + batch, ranks)
        position += batch
        yield [order(samples, seed, place // samples)[place % samples] for place in places], {"position": position}


def remembers(samples, batch, seed, rank, ranks, state=None):
    """All that was seen stands in the state."""
    seen = list(state or [])
    rows = sequence(samples, batch, seed, 0, 1, len(seen))
    for indices, _ in rows:
        seen += indices
        yield indices[rank * batch // ranks : (rank + 1) * batch // ranks], list(seen)


def returns(samples, batch, seed, rank, ranks, state=None):
    return order(samples, seed, 0)[:batch], 1


def one_epoch(samples, batch, seed, rank, ranks, state=None):
    for start in range(0, samples, batch):
        yield order(samples, seed, 0)[start : start + batch], start


def test_another_right_answer_passes():
    assert_passes(NAME, in_turns)


def test_a_state_that_grows_is_told():
    assert_found_out(NAME, remembers, 3, r"the state takes \d+ bytes of JSON, 200 are plenty")


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (returns, r"the call returned tuple: yield \(indices, state\), once for each step"),
        (one_epoch, r"it ended after \d+ of \d+ steps: epoch follows epoch"),
    ],
)
def test_what_yields_too_little_is_told_in_words(answer, told):
    assert_found_out(NAME, answer, 1, told)


def test_answer_of_a_step_passes_it_and_fails_the_next():
    assert_ends_a_step(NAME, 1, epoch_anew, "restarts, .*came twice or more")
