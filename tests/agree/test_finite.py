"""NaN and infinity in gradients: found on the rank that computed them."""

import pytest
import torch
import torch.distributed as dist
from torch import nn

from parallel_lab import RankFailed, launch
from parallel_lab.agree.finite import is_finite, require_finite
from parallel_lab.data_parallel import DDP, Zero1, average_gradients


def test_what_is_finite():
    most = torch.finfo(torch.float32).max
    assert is_finite(torch.tensor([most, most]))  # the sum overflows, no element does
    assert not is_finite(torch.tensor([1.0, float("nan")]))
    assert not is_finite(torch.tensor([float("inf"), -float("inf")]))
    assert is_finite(torch.empty(0))


def test_the_parameter_is_named_and_missing_gradients_pass():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    require_finite(model, "rank 0")
    model[1].weight.grad = torch.tensor([[0.0, float("nan")]])
    with pytest.raises(ValueError, match=r"^rank 0: the gradient of 1\.weight is NaN or infinite"):
        require_finite(model, "rank 0")


@pytest.mark.parametrize("through", ["average_gradients", "DDP"])
def test_under_zero1_the_rank_that_caused_it_is_named_and_no_weight_has_changed(through, tmp_path):
    odd, value = {"average_gradients": (0, float("nan")), "DDP": (2, float("inf"))}[through]

    def fn():
        torch.manual_seed(0)
        model = nn.Linear(4, 3)
        caller = DDP(model) if through == "DDP" else model
        optimizer = Zero1(model.parameters(), torch.optim.AdamW, lr=0.1)
        before = [p.detach().clone() for p in model.parameters()]
        inputs = torch.ones(2, 4)
        if dist.get_rank() == odd:
            inputs[0, 0] = value
        try:
            caller(inputs).sum().backward()
            if through == "average_gradients":
                average_gradients(model)
            optimizer.step()
        except ValueError:
            same = all(map(torch.equal, before, model.parameters()))
            (tmp_path / f"{dist.get_rank()}").write_text(str(same))
            raise

    with pytest.raises(RankFailed, match="NaN or inf") as failed:
        launch(fn, ranks=3, timeout=20)
    assert failed.value.rank == odd
    assert (tmp_path / f"{odd}").read_text() == "True"
