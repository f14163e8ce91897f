"""`pipeline_executor`: mistakes in gradients, scale, memory, order and loss fail with their own messages."""

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from grading import assert_ends_a_step, assert_found_out, assert_passes, by_value

by_value(__name__)
NAME = "pipeline_executor"


def received(like, rank):
    tensor = torch.empty_like(like)
    dist.recv(tensor, rank)
    return tensor


def of_the_batch(y, target, targets):
    return F.mse_loss(y, target, reduction="sum") / sum(each.numel() for each in targets)


def shared(loss):
    dist.broadcast(loss, dist.get_world_size() - 1)
    return loss.item()


def executor(
    order=lambda row: row,
    loss_of=of_the_batch,
    gradient_for=lambda y: received(y, dist.get_rank() + 1),
    send=dist.isend,
    after_backward=lambda stage: None,
    share=shared,
):
    def pipeline_executor(row, stage, inputs, targets):
        rank, last = dist.get_rank(), dist.get_world_size() - 1
        loss, held, leaving = torch.zeros((), dtype=torch.float64), {}, []
        for each in order(row):
            kind, mb = each[0], int(each[1:])
            if kind == "F":
                x = inputs[mb] if rank == 0 else received(inputs[mb], rank - 1).requires_grad_()
                y = stage(x)
                if rank < last:
                    leaving.append(send(y.detach(), rank + 1))
                else:
                    y = loss_of(y, targets[mb], targets)
                    loss += y.detach()
                held[mb] = x, y
            else:
                x, y = held.pop(mb)
                y.backward(gradient_for(y) if rank < last else None)
                if rank > 0:
                    leaving.append(send(x.grad, rank - 1))
                after_backward(stage)
                del x, y
        for work in leaving:
            if work is not None:
                work.wait()
        return share(loss)

    return pipeline_executor


def forwards_first(row):
    return sorted(row, key=lambda each: each[0], reverse=True)


def mean_of_means(y, target, targets):
    return F.mse_loss(y, target) / len(targets)


def of_ones(y):
    """What came is not used."""
    return torch.ones_like(received(y, dist.get_rank() + 1))


def step_of_sgd(stage):
    with torch.no_grad():
        for p in stage.parameters():
            p -= 0.1 * p.grad


def own(loss):
    return loss.item()


CHEATS = [  # (answer, the test that sees through it, what it says)
    (executor(gradient_for=of_ones), 0, "at 2 ranks: rank 0, the gradient of parameter 0"),
    (executor(loss_of=mean_of_means), 2, "at 2 ranks: rank 0, the loss is .*, expected"),
    (executor(order=forwards_first), 4, "at 2 ranks: rank 0, the most microbatches held at once: got 6, expected 2"),
    (executor(send=dist.send), 3, "at 2 ranks: the ranks did not finish"),
    (executor(after_backward=step_of_sgd), 0, "at 1 rank: rank 0, after the call: parameter 0"),
    (executor(share=own), 0, "at 2 ranks: rank 0, the loss is 0, expected"),
]


@pytest.mark.parametrize(
    ("cheat", "place", "said"), [pytest.param(*case, id=str(number)) for number, case in enumerate(CHEATS)]
)
def test_cheat_fails_with_its_message(cheat, place, said):
    assert_found_out(NAME, cheat, place, said)


STEPS = [  # (an answer that ends the step, what the next step's check says)
    (executor(loss_of=mean_of_means, send=dist.send), "at 2 ranks: rank 0, the loss is .*, expected"),
    (executor(send=dist.send), "at 2 ranks: the ranks did not finish"),
]


@pytest.mark.parametrize("step", range(1, len(STEPS) + 1))
def test_answer_of_a_step_passes_it_and_fails_the_next(step):
    assert_ends_a_step(NAME, step, *STEPS[step - 1])


def with_receives_ahead(row, stage, inputs, targets):
    """Not a cheat: every receive is posted at the start."""
    rank, last = dist.get_rank(), dist.get_world_size() - 1
    came = {mb: torch.empty_like(x) for mb, x in enumerate(inputs)}
    back = {mb: torch.empty_like(x) for mb, x in enumerate(inputs)}
    coming = {}
    for each in row:
        kind, mb = each[0], int(each[1:])
        if kind == "F" and rank:
            coming[each] = dist.irecv(came[mb], rank - 1)
        if kind == "B" and rank < last:
            coming[each] = dist.irecv(back[mb], rank + 1)
    total, held, leaving = torch.zeros((), dtype=torch.float64), {}, []
    for each in row:
        kind, mb = each[0], int(each[1:])
        if each in coming:
            coming[each].wait()
        if kind == "F":
            x = came.pop(mb).requires_grad_() if rank else inputs[mb]
            y = stage(x)
            if rank == last:
                y = of_the_batch(y, targets[mb], targets)
                total += y.detach()
            else:
                leaving.append(dist.isend(y.detach(), rank + 1))
            held[mb] = x, y
        else:
            x, y = held.pop(mb)
            torch.autograd.backward(y, back.pop(mb) if rank < last else None)
            if rank:
                leaving.append(dist.isend(x.grad, rank - 1))
        x = y = None
    for work in leaving:
        work.wait()
    dist.all_reduce(total)
    return total


def test_another_right_answer_passes():
    assert_passes(NAME, with_receives_ahead)
