"""`vocab_loss`: gathered logits, own maxima, targets of others, overflow, and a gradient that is n times too large."""

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from grading import assert_ends_a_step, assert_found_out, assert_passes, by_value, solutions
from torch.distributed.nn import functional as of_torch

by_value(__name__)
NAME = "vocab_loss"
summed = solutions(NAME)["Sum"].apply


class Share:
    """This rank's columns, where they begin, and the ranks' largest logits."""

    def __init__(self, logits, targets, vocab):
        n, self.rank = dist.get_world_size(), dist.get_rank()
        self.columns = [len(part) for part in torch.arange(vocab).tensor_split(n)]
        self.local = targets - sum(self.columns[: self.rank])
        self.here = (self.local >= 0) & (self.local < self.columns[self.rank])
        self.counts = targets != -100
        self.logits = F.pad(logits, (0, 1), value=-torch.inf)
        self.largest = self.logits.detach().amax(1)

    def of_target(self):
        picked = self.logits.gather(1, torch.where(self.here, self.local, 0)[:, None])[:, 0]
        return torch.where(self.here, picked, 0.0)


def loss_of(largest=None, of_target=Share.of_target, add=summed, counted=True):
    def vocab_loss(logits, targets, vocab):
        share = Share(logits, targets, vocab)
        most = largest(share) if largest else share.largest
        if largest is None:
            dist.all_reduce(most, dist.ReduceOp.MAX)
        sums = add((share.logits - most[:, None]).exp().sum(1))
        losses = sums.log() + most - add(of_target(share))
        return losses[share.counts].mean() if counted else (losses * share.counts).mean()

    return vocab_loss


def none(share):
    return torch.zeros_like(share.largest)


def nearest(share):
    """A target of another rank is clamped into the share, and counts there."""
    column = share.local.clamp(0, share.columns[share.rank] - 1)
    return share.logits.gather(1, column[:, None])[:, 0]


def gathers(logits, targets, vocab):
    parts = [torch.empty_like(logits) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, logits.detach())
    parts[dist.get_rank()] = logits
    return F.cross_entropy(torch.cat(parts, 1), targets)


CHEATS = [  # (answer, the test that sees through it, what it says)
    (loss_of(largest=lambda share: share.largest), 0, "at 2 ranks: each rank subtracted the largest of its own logits"),
    (loss_of(of_target=nearest), 0, "at 2 ranks: a target counted on ranks that do not have it"),
    (loss_of(add=of_torch.all_reduce), 1, "gradient of its logits: element .*; every element is 2 times"),
    (loss_of(largest=none), 2, r"the loss: element 0 is (inf|nan), expected .*\n.*exp\(1000\) is infinite"),
    (gathers, 3, r"rank 0 sent .* in the forward of step 0, three numbers per token send 1,728 B\n.*All logits stay"),
    (loss_of(counted=False), 4, "at 2 ranks: the mean was over all targets, ignored ones too"),
]


@pytest.mark.parametrize(
    ("cheat", "place", "said"), [pytest.param(*case, id=str(number)) for number, case in enumerate(CHEATS)]
)
def test_cheat_fails_with_its_message(cheat, place, said):
    assert_found_out(NAME, cheat, place, said)


class ByHand(torch.autograd.Function):
    """Not a cheat: the gradient is written out, and two of the sums travel together."""

    @staticmethod
    def forward(ctx, logits, targets, vocab):
        share = Share(logits, targets, vocab)
        dist.all_reduce(share.largest, dist.ReduceOp.MAX)
        exponentials = (share.logits - share.largest[:, None]).exp()
        both = torch.stack([exponentials.sum(1), share.of_target()])
        dist.all_reduce(both)
        gradient = (exponentials / both[0][:, None])[:, :-1]
        gradient[share.here.nonzero()[:, 0], share.local[share.here]] -= 1
        ctx.save_for_backward(gradient * share.counts[:, None] / share.counts.sum())
        return (both[0].log() + share.largest - both[1])[share.counts].mean()

    @staticmethod
    def backward(ctx, of_loss):
        return ctx.saved_tensors[0] * of_loss, None, None


def test_another_right_answer_passes():
    assert_passes(NAME, ByHand.apply)


def test_answer_of_a_step_passes_it_and_fails_the_next():
    assert_ends_a_step(NAME, 1, loss_of(add=of_torch.all_reduce), "every element is 2 times")
    assert_ends_a_step(NAME, 2, gathers, "three numbers per token send")
