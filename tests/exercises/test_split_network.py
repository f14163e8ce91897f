"""`split_network`: whole networks, gradients that never come back, and a message too many are told what they are."""

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from grading import assert_ends_a_step, assert_found_out, assert_passes, by_value
from torch import nn

by_value(__name__)
NAME = "split_network"


class Part:
    """This rank's layers; a mistake is another way to do one of the four things."""

    def __init__(self, make_layer, widths, cut):
        self.rank, self.width = dist.get_rank(), widths[cut]
        numbers = range(cut) if self.rank == 0 else range(cut, len(widths) - 1)
        self.part = self.make(make_layer, numbers, len(widths) - 1)

    def make(self, make_layer, numbers, layers):
        return nn.Sequential(*[make_layer(i) for i in numbers])

    def __call__(self, x, y):
        return self.first(x, y) if self.rank == 0 else self.last(x, y)

    def first(self, x, y):
        h = self.part(x)
        dist.send(h.detach(), 1)
        gradient = torch.empty_like(h)
        dist.recv(gradient, 1)
        h.backward(gradient)

    def last(self, x, y):
        h = self.received(x)
        loss = F.mse_loss(self.part(h), y)
        loss.backward()
        dist.send(self.back(h), 0)
        return loss

    def received(self, x):
        h = x.new_empty(len(x), self.width)
        dist.recv(h, 0)
        return h.requires_grad_()

    def back(self, h):
        return h.grad


class Whole(Part):
    """Makes all layers and takes a slice, whose list stays."""

    def make(self, make_layer, numbers, layers):
        self.whole = nn.Sequential(*[make_layer(i) for i in range(layers)])
        return self.whole[numbers.start : numbers.stop]


class Detached(Part):
    """Nobody hands the gradient over: rank 0's layers never learn."""

    def first(self, x, y):
        dist.send(self.part(x).detach(), 1)

    def last(self, x, y):
        loss = F.mse_loss(self.part(self.received(x)), y)
        loss.backward()
        return loss.item()


class NoLeaf(Part):
    def received(self, x):
        h = x.new_empty(len(x), self.width)
        dist.recv(h, 0)
        return h


class Halved(Part):
    def back(self, h):
        return h.grad / 2


class BothReceive(Part):
    def first(self, x, y):
        h = self.part(x)
        gradient = torch.empty_like(h)
        dist.recv(gradient, 1)
        dist.send(h.detach(), 1)
        h.backward(gradient)


class LossOnRank0(Part):
    """Everything comes back to the rank that began."""

    def first(self, x, y):
        h = self.part(x)
        dist.send(h.detach(), 1)
        output = torch.empty_like(y)
        dist.recv(output, 1)
        loss = F.mse_loss(output.requires_grad_(), y)
        loss.backward()
        dist.send(output.grad, 1)
        gradient = torch.empty_like(h)
        dist.recv(gradient, 1)
        h.backward(gradient)
        return loss.item()

    def last(self, x, y):
        h = self.received(x)
        output = self.part(h)
        dist.send(output.detach(), 0)
        gradient = torch.empty_like(output)
        dist.recv(gradient, 0)
        output.backward(gradient)
        dist.send(h.grad, 0)


CHEATS = [  # (answer, the test that sees through it, what it says)
    (LossOnRank0, 0, "rank 1, step 0: its loss: got None, .*The loss is computed where the last layer is"),
    (Whole, 1, "rank [01] before a step holds .*, its own layers are .*a list of all of them stays alive"),
    (Detached, 2, "rank 0, step 0: layer 0's gradient of weight: got None, .*who hands over the gradient"),
    (NoLeaf, 2, "TypeError: .*NoneType"),
    (Halved, 2, "rank 0, step 0: layer 0's gradient of weight: .*every element is 0.5 times what it should be"),
    (BothReceive, 0, "rank 0 is in recv .*rank 1 is in recv|waits for .*recv"),
]


@pytest.mark.parametrize(("cheat", "place", "said"), CHEATS, ids=lambda value: getattr(value, "__name__", None))
def test_mistake_fails_with_its_message(cheat, place, said):
    assert_found_out(NAME, cheat, place, f"(?s){said}")


class ShapeFirst(Part):
    """Right, but rank 0 says how large its message is."""

    def first(self, x, y):
        dist.send(torch.tensor([len(x), self.width]), 1)
        super().first(x, y)

    def received(self, x):
        shape = torch.empty(2, dtype=torch.long)
        dist.recv(shape, 0)
        h = x.new_empty(*shape.tolist())
        dist.recv(h, 0)
        return h.requires_grad_()


def by_functions(make_layer, widths, cut):
    """Not a mistake: nonblocking messages, `autograd.grad` and a graph that is kept in another way."""
    rank = dist.get_rank()
    part = [make_layer(i) for i in (range(cut) if rank == 0 else range(cut, len(widths) - 1))]

    def forward(x):
        for layer in part:
            x = layer(x)
        return x

    def step(x, y):
        h = forward(x) if rank == 0 else x.new_empty(len(x), widths[cut])
        gradient = torch.empty_like(h)
        if rank == 0:
            works = [dist.isend(h.detach(), 1), dist.irecv(gradient, 1)]
            for work in works:
                work.wait()
            torch.autograd.backward([h], [gradient])
            return None
        dist.irecv(h, 0).wait()
        parameters = [p for layer in part for p in layer.parameters()]
        loss = F.mse_loss(forward(h.requires_grad_()), y)
        of_h, *grads = torch.autograd.grad(loss, [h, *parameters])
        for parameter, grad in zip(parameters, grads, strict=True):
            parameter.grad = grad
        dist.isend(of_h, 0).wait()
        return loss

    return step


def test_another_right_answer_passes():
    assert_passes(NAME, by_functions)


@pytest.mark.parametrize(
    ("step", "answer", "said"),
    [(1, Detached, "layer 0's gradient of weight: got None"), (2, ShapeFirst, "rank 0 sent 112 B in step 0")],
)
def test_answer_of_a_step_passes_it_and_fails_the_next(step, answer, said):
    assert_ends_a_step(NAME, step, answer, said)


def test_what_is_no_function_is_told_so():
    assert_found_out(NAME, lambda make_layer, widths, cut: None, 0, "expected the function step")
