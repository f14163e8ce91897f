"""Bad input, and stages that raise: a sentence on the rank that caused it."""

import re
import sys

import cloudpickle
import pytest
import torch
import torch.distributed as dist
from chains import SCHEDULES, WIDTH, chain, data, own, squares
from torch import nn

from parallel_lab import RankFailed, launch, pipeline
from parallel_lab.pipeline import Stage, step, tie
from parallel_lab.plan import Plan

cloudpickle.register_pickle_by_value(sys.modules[__name__])


def run(plan, change=lambda given: None, steps=1):
    """Steps of `plan`, with `change` to what is given before the last."""
    modules = chain(len(pipeline.placement(plan)))
    inputs, targets = data(4)
    given = {
        "plan": plan,
        "stages": own(plan, modules),
        "inputs": inputs,
        "targets": targets,
        "loss": squares,
        "count": None,
    }
    for number in range(steps):
        if number == steps - 1:
            change(given)
        *positional, count = given.values()
        step(*positional, count=count)


def says(message, change, rank=0, cause="ValueError", **options):
    with pytest.raises(RankFailed, match=message) as caught:
        launch(run, options.pop("plan", pipeline.one_f_one_b(2, 4)), change, ranks=2, echo=False, **options)
    assert (caught.value.rank, caught.value.cause) == (rank, cause)
    return str(caught.value)


def on(rank, change):
    return lambda given: change(given) if dist.get_rank() == rank else None


@pytest.mark.parametrize(
    ("rank", "name", "value", "cause", "message"),
    [
        (
            0,
            "inputs",
            torch.ones(4, WIDTH),
            "TypeError",
            r"microbatches is Tensor: expected a list .* batch.tensor_split\(4\)",
        ),
        (0, "inputs", None, "TypeError", "microbatches is NoneType: expected a list"),
        (
            0,
            "inputs",
            [1, 2, 3],
            "ValueError",
            "3 microbatches, and the plan has 4 microbatches: expected one for each",
        ),
        (1, "targets", [1, 2, 3], "ValueError", "3 targets, and the plan has 4 microbatches"),
        (1, "targets", [(1, 2)] * 4, "TypeError", "a target is tuple, not a tensor: say how many terms there are"),
        (1, "targets", [torch.tensor([-100])] * 4, "ValueError", "no microbatch has a target that counts"),
        (1, "count", -1, "ValueError", "count=-1: expected a finite number"),
        (1, "loss", lambda y, t: y - t, "TypeError", r"loss_fn returned a tensor of shape \(1, 6\): expected the sum"),
        (
            1,
            "loss",
            lambda y, t: 1.0,
            "TypeError",
            "loss_fn returned float: expected the sum of the losses, one number",
        ),
        (
            1,
            "stages",
            {0: nn.Identity()},
            "ValueError",
            r"rank 1: the plan has the stages \[1\] on this rank, and got .*\[0\]",
        ),
        (1, "stages", {1: squares}, "TypeError", "rank 1: stage 1 is function, expected a torch.nn.Module or a Stage"),
    ],
)
def test_a_wrong_argument_is_named_by_the_rank_that_uses_it(rank, name, value, cause, message):
    says(message, on(rank, lambda given: given.update({name: value})), rank, cause)


def test_the_wrong_number_of_ranks():
    message = "rank [01]: the plan has 3 rows, and the group 2 ranks: one row a rank"
    with pytest.raises(RankFailed, match=message):
        launch(lambda: step(pipeline.gpipe(3, 2), nn.Identity(), [], [], squares), ranks=2, echo=False)


def test_a_plan_that_leaves_out_a_pass():
    whole = pipeline.zb_h1(2, 2)
    rows = [[op for op in row if (op.kind, op.part, op.mb) != ("W", 1, 1)] for row in whole.rows]
    with pytest.raises(RankFailed, match="stage 1 has F, I of microbatch 1: expected F and B, or F, I and W"):
        launch(run, Plan(tuple(map(tuple, rows))), ranks=2, echo=False)


class Changing(nn.Module):
    """Returns another shape from its fifth call on, a step later."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return x if self.calls < 5 else torch.cat([x, x])


class Wrong(nn.Module):
    def __init__(self, at=2, backward=False):
        super().__init__()
        self.at, self.backward, self.calls = at, backward, 0
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, x):
        self.calls += 1
        x = x * self.weight
        if self.calls == self.at + 1:
            if not self.backward:
                raise ZeroDivisionError("no such layer")
            x.register_hook(lambda _: 1 / 0)
        return x


def replace(stage, module):
    def change(given):
        if stage in given["stages"]:
            given["stages"][stage] = module

    return change


def test_a_stage_that_returns_another_shape_than_before():
    with pytest.raises(RankFailed, match=re.escape("rank 0: stage 0 returned (2, 6) of float64, without a gradient")):
        launch(repeatedly, Changing(), ranks=2, echo=False)


def repeatedly(module):
    plan = pipeline.one_f_one_b(2, 4)
    inputs, targets = data(4, rows=(1,))
    mine = module if dist.get_rank() == 0 else chain(2)[1]
    for _ in range(2):
        step(plan, mine, inputs, targets, squares)


@pytest.mark.parametrize("name", ["gpipe", "one_f_one_b", "zb_h1", "zb_v"])
@pytest.mark.parametrize("backward", [False, True])
def test_an_error_in_a_stage_ends_all_and_is_named(name, backward):
    plan, where = SCHEDULES[name](2, 4), "backward" if backward else "forward"
    change = replace(1, Wrong(backward=backward))
    report = says(None, change, rank=1, cause="ZeroDivisionError", plan=plan, timeout=20)
    of_a_half = " of input" if backward and "zb" in name else ""
    assert f"Rank 1 of the pipeline was in the {where}{of_a_half} pass of stage 1, microbatch 2." in report


def test_what_a_stage_returns():
    says("Words returned dict: a stage returns a tensor or a tuple of tensors", replace(0, Words()), 0, "TypeError")


class Words(nn.Module):
    def forward(self, x):
        return {"x": x}


def test_ties():
    def shapes():
        tie(nn.Parameter(torch.zeros(2 + dist.get_rank(), 3)))

    with pytest.raises(RankFailed, match=r"a tied weight has the same shape in all stages, got \[\(2, 3\), \(3, 3\)\]"):
        launch(shapes, ranks=2, echo=False)


def after_an_error():
    """A step that raised on the only rank leaves nothing for the next."""
    stage, (inputs, targets) = Stage(nn.Sequential(chain(1)[0], Wrong())), data(4)
    with pytest.raises(ZeroDivisionError):
        step(pipeline.gpipe(1, 4), stage, inputs, targets, squares)
    return step(pipeline.gpipe(1, 4), stage, inputs, targets, squares).item()


def test_a_step_after_one_that_raised():
    assert launch(after_an_error, ranks=1)[0] > 0
