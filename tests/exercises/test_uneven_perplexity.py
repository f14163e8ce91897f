"""`uneven_perplexity`: means of losses and of perplexities, padding, losses that travel, forgotten scales, 0 / 0."""

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from grading import assert_ends_a_step, assert_found_out, assert_passes, by_value

by_value(__name__)
NAME = "uneven_perplexity"


def summed(*values):
    total = torch.stack([torch.as_tensor(value).detach().double() for value in values])
    dist.all_reduce(total)
    return total


def losses(logits, targets, reduction):
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction=reduction)


def mean_of_losses(logits, targets):
    loss = losses(logits, targets, "mean")
    return (summed(loss)[0] / dist.get_world_size()).exp().item(), loss


def mean_of_perplexities(logits, targets):
    loss = losses(logits, targets, "mean")
    return (summed(loss.exp())[0] / dist.get_world_size()).item(), loss


def with_padding(logits, targets):
    nats = losses(logits, targets, "sum")
    total = summed(nats, targets.numel())
    return (total[0] / total[1]).exp().item(), nats


def by_token(logits, targets):
    """Right, and sends the loss of each token."""
    mine, parts = losses(logits, targets, "none").detach()[targets.flatten() != -100], [None] * dist.get_world_size()
    dist.all_gather_object(parts, mine)
    return torch.cat(parts).mean().exp().item(), losses(logits, targets, "sum")


def scaled(logits, targets, of):
    nats = losses(logits, targets, "sum")
    count = (targets != -100).sum()
    total = summed(nats, count)
    return (total[0] / total[1]).exp().item(), of(nats, count, total[1], dist.get_world_size())


def own_mean(logits, targets):
    return scaled(logits, targets, lambda nats, count, total, n: nats / count)


def without_ranks(logits, targets):
    return scaled(logits, targets, lambda nats, count, total, n: nats / total)


def nothing_by_nothing(logits, targets):
    return scaled(logits, targets, lambda nats, count, total, n: nats / count * (n * count / total))


CHEATS = [  # (answer, the test that sees through it, what it says)
    (mean_of_losses, 0, r"counts \(40, 9\): the perplexity is exp of the mean of the ranks' losses\n.*What adds up"),
    (mean_of_perplexities, 0, r"counts \(40, 9\): it is the mean of the ranks' perplexities"),
    (with_padding, 0, r"the perplexity counts padding as tokens\n.*are no tokens"),
    (by_token, 1, r"sent .*two numbers of 8 bytes, gathered, send 48 B\n.*two numbers matter"),
    (own_mean, 2, r"the gradient is that of the mean of the ranks' losses\n.*t of all tokens"),
    (nothing_by_nothing, 3, r"the loss after the same average is nan, expected .*\n.*0 / 0 is NaN"),
]


@pytest.mark.parametrize(("cheat", "place", "said"), [pytest.param(*case, id=case[0].__name__) for case in CHEATS])
def test_cheat_fails_with_its_message(cheat, place, said):
    assert_found_out(NAME, cheat, place, said)


def mean_with_weight(logits, targets):
    """Not a cheat: the mean of a rank, times its share of the tokens and the number of ranks."""
    return scaled(logits, targets, lambda nats, count, total, n: nats / count.clamp(min=1) * (n * count / total))


def test_another_right_answer_passes():
    assert_passes(NAME, mean_with_weight)


def test_answer_of_a_step_passes_it_and_fails_the_next():
    assert_ends_a_step(NAME, 1, without_ranks, "the gradient is as many times too small as there are ranks")
