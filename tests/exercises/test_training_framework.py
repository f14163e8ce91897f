"""`training_framework`: shortcuts in shares, numbers, traffic and checkpoints fail with their own messages."""

import copy

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from grading import assert_ends_a_step, assert_found_out, by_value, solutions

by_value(__name__)
NAME = "training_framework"
SOLUTION = solutions(NAME)


def own_rows(k, batch):
    return torch.arange(k * batch, (k + 1) * batch).tensor_split(dist.get_world_size())[dist.get_rank()]


def add_up(model, total):
    for tensor in [*(p.grad for p in model.parameters()), total]:
        dist.all_reduce(tensor)


def summed(output, target, batch):
    return F.cross_entropy(output, target, reduction="sum") / batch


def framework(
    rows_of=own_rows,
    loss_of=summed,
    exchange=add_up,
    resume=SOLUTION["resume"],
    save=SOLUTION["save"],
    micro=lambda m: m,
    each=None,
):
    def training_framework(model, inputs, targets, *, steps, batch, microbatches=1, lr=0.1, checkpoint=None):
        optimizer, losses = torch.optim.SGD(model.parameters(), lr, momentum=0.9), []
        for k in range(resume(model, optimizer, checkpoint), steps):
            total = torch.zeros((), dtype=inputs.dtype)
            optimizer.zero_grad()
            for rows in rows_of(k, batch).tensor_split(micro(microbatches)):
                loss = loss_of(model(inputs[rows]), targets[rows], batch)
                loss.backward()
                total += loss.detach()
                if each:
                    each(model)
            exchange(model, total)
            optimizer.step()
            losses.append(total.item())
        save(model, optimizer, steps, checkpoint)
        return losses

    return training_framework


def all_rows(k, batch):
    return torch.arange(k * batch, (k + 1) * batch)


def mean_of_share(output, target, batch):
    return F.cross_entropy(output, target)


def mean_of_means(model, total):
    for tensor in [*(p.grad for p in model.parameters()), total]:
        dist.all_reduce(tensor)
        tensor /= dist.get_world_size()


def reduce_so_far(model):
    """The gradients of each microbatch by themselves: three times the traffic."""
    n = dist.get_world_size()
    for p in model.parameters():
        before = getattr(p, "before", torch.zeros_like(p))
        fresh = p.grad - before
        dist.all_reduce(fresh)
        p.grad = before + fresh / n
        p.before = p.grad.clone()


def add_up_again(model, total):
    for p in model.parameters():
        p.grad *= dist.get_world_size()
        p.before = torch.zeros_like(p)
    dist.all_reduce(total)


def no_start(model, optimizer, checkpoint):
    return 0


def without_momentum(model, optimizer, checkpoint):
    fresh = copy.deepcopy(optimizer.state_dict())
    step = SOLUTION["resume"](model, optimizer, checkpoint)
    optimizer.load_state_dict(fresh)
    return step


def everyone_saves(model, optimizer, step, checkpoint):
    if checkpoint:
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}, checkpoint)


every_rank_trains_on_all = framework(rows_of=all_rows, exchange=mean_of_means)
right_for_equal_shares = framework(loss_of=mean_of_share, exchange=mean_of_means)
own_weights_kept = framework(resume=no_start)
each_microbatch_travels = framework(exchange=add_up_again, each=reduce_so_far)
momentum_lost = framework(resume=without_momentum)
every_rank_saves = framework(save=everyone_saves)


CHEATS = [  # (answer, the test that sees through it, what it says)
    (
        every_rank_trains_on_all,
        1,
        "at 2 ranks: the ranks ran \\[36, 36\\] samples through the model; there were 36 to share out",
    ),
    (right_for_equal_shares, 2, "at 3 ranks: rank 0, the loss of step 0 is"),
    (own_weights_kept, 0, "at 2 ranks: rank 0, the loss of step 0 is"),
    (each_microbatch_travels, 3, "4 all-reduces and the start send"),
    (momentum_lost, 4, "at 2 ranks: rank 0, the loss of step"),
    (every_rank_saves, 4, "rank 1, the files on its disk: got \\['checkpoint.pt'\\], expected \\[\\]"),
]


@pytest.mark.parametrize(
    ("cheat", "place", "said"), [pytest.param(*case, id=str(number)) for number, case in enumerate(CHEATS)]
)
def test_cheat_fails_with_its_message(cheat, place, said):
    assert_found_out(NAME, cheat, place, said)


def not_saved(model, optimizer, step, checkpoint):
    pass


no_microbatches = {"micro": lambda m: 1, "save": not_saved}


STEPS = [  # (an answer that ends the step, what the next step's check says)
    (
        framework(loss_of=mean_of_share, exchange=mean_of_means, **no_microbatches),
        "at 3 ranks: rank 0, the loss of step 0",
    ),
    (framework(**no_microbatches), "called the model with .* rows; 3 microbatches make 12 calls"),
    (framework(save=not_saved), "the files on its disk: got .., expected .'checkpoint.pt'."),
]


@pytest.mark.parametrize("step", range(1, len(STEPS) + 1))
def test_answer_of_a_step_passes_it_and_fails_the_next(step):
    assert_ends_a_step(NAME, step, *STEPS[step - 1])
