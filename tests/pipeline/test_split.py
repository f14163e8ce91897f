"""The split backward in one process: I and W come to what one backward pass comes to, for any call of a module."""

import pytest
import torch
from torch import nn

from parallel_lab.pipeline import Stage


class Named(nn.Module):
    """Takes a word beside its tensor, and returns a tree of tensors."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 4, dtype=torch.float64))

    def forward(self, x, *, times):
        return {"product": x @ self.weight * times, "others": [x.sum(-1), times]}


class Through(nn.Module):
    """Calls a module as it wants to be called."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        if isinstance(self.inner, Named):
            found = self.inner(x, times=3)
            return found["product"] + found["others"][0].unsqueeze(-1) * found["others"][1]
        if isinstance(self.inner, nn.Bilinear):
            return self.inner(x, x)
        if isinstance(self.inner, nn.Embedding):
            return self.inner((x.detach() > 0).long()).sum(-2) * x
        return self.inner(x)


INNER = [
    Named,
    lambda: nn.Linear(4, 4, dtype=torch.float64),
    lambda: nn.Bilinear(4, 4, 4, dtype=torch.float64),
    lambda: nn.Embedding(2, 4, dtype=torch.float64),
]


@pytest.mark.parametrize("make", INNER, ids=["keywords and a tree", "linear", "two tensors", "embedding"])
def test_both_halves_are_the_whole(make):
    torch.manual_seed(0)
    module = Through(make())
    x, gradient = torch.randn(2, 3, 4, dtype=torch.float64), torch.randn(2, 3, 4, dtype=torch.float64)
    whole = x.clone().requires_grad_()
    module(whole).backward(gradient)
    expected = [p.grad for p in module.parameters()]
    module.zero_grad()
    stage = Stage(module)
    stage.forward(0, (x.clone().requires_grad_(),), split=True)
    (of_input,) = stage.backward_input(0, [gradient])
    assert all(p.grad is None for p in module.parameters())  # they wait for W
    stage.backward_weight(0)
    torch.testing.assert_close(of_input, whole.grad)
    for p, right in zip(module.parameters(), expected, strict=True):
        torch.testing.assert_close(p.grad, right)
