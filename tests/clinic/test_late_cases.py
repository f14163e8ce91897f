"""Mends of cases 13 to 20: a tempting half of the cure is refused.

Each is run by the ward on real ranks. What is wrong and nearly right has its own words in the feedback.
"""

import sys

import cloudpickle
import pytest
import torch
import torch.distributed as dist
from torch.nn.functional import cross_entropy
from torch.nn.utils import clip_grad_norm_, parameters_to_vector, vector_to_parameters

from parallel_lab.clinic.cases import CASES, circle, starved
from parallel_lab.clinic.cases.gathered import SHARE
from parallel_lab.clinic.chart import Unhealthy
from parallel_lab.clinic.ward import SEED, judge, run_case
from parallel_lab.trace.units import format_bytes

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # else each rank imports pytest and the view


def averaged(model):
    for p in model.parameters():
        dist.all_reduce(p.grad)
        p.grad /= dist.get_world_size()


def test_experts_the_gradients_are_dropped_where_not_all_ranks_have_them():
    def dropped(model, batches, report):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        for x, y, expert in batches:
            optimizer.zero_grad()
            chosen = [(expert == e).any() for e in range(len(model))]
            parts = (
                cross_entropy(module(x[expert == e]), y[expert == e], reduction="sum") / len(y)
                for e, module in enumerate(model)
                if chosen[e]
            )
            loss = sum(parts)
            loss.backward()
            everywhere = torch.tensor(chosen, dtype=torch.int32)
            dist.all_reduce(everywhere, dist.ReduceOp.MIN)
            for module, used in zip(model, everywhere, strict=True):
                if used:
                    averaged(module)
                else:
                    module.zero_grad()
            optimizer.step()
            report(model, loss=loss.detach())
        return model

    refused(13, dropped, "away from what one process comes to")


def test_a_loader_that_reads_everything_first():
    def all_first(model, disk, report):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        for x, y in [disk.read(step) for step in range(len(disk))]:
            loss = cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            averaged(model)
            optimizer.step()
            report(model, loss=loss.detach())
        return model

    case = CASES[14]
    chart = run_case(case, all_first)
    assert starved.most_waiting(chart, 0) == starved.STEPS > starved.MOST
    with pytest.raises(Unhealthy, match=r"of 9 reads began|lay in memory"):
        judge(case, chart)


def test_batches_that_do_not_come_from_the_disk():
    def around(model, disk, report):
        disk.read = disk.batches.__getitem__
        return CASES[14].job(model, disk, report)

    refused(14, around, "rank 0 read 0 of its 10 batches from the disk")


def test_clipped_before_and_after():
    def twice(model, batches, report):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        for x, y in batches:
            loss = cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            clip_grad_norm_(model.parameters(), 0.5)
            averaged(model)
            norm = clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
            report(model, loss=loss.detach(), norm=norm)
        return model

    refused(15, twice, "Whose gradient has the norm that is reported")


def test_the_right_files_and_the_wrong_first_batch():
    def skips(model, folder, batches, report):
        optimizer, rank = torch.optim.SGD(model.parameters(), lr=0.5), dist.get_rank()
        mine = folder.read(folder.steps(rank)[0], rank)
        shares = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
        dist.all_gather(shares, mine)
        vector_to_parameters(torch.cat(shares), model.parameters())
        for x, y in batches[8:]:  # as the newest file of rank 0 says
            optimizer.zero_grad()
            cross_entropy(model(x), y).backward()
            averaged(model)
            optimizer.step()
            report(model)
        return model

    refused(16, skips, "away from what one process comes to")


def test_an_order_of_its_own_for_each_rank():
    def shuffled(model, samples, report):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        for epoch in range(2):
            dice = torch.Generator().manual_seed(100 * dist.get_rank() + epoch)
            order = torch.randperm(len(samples), generator=dice)[: len(samples) // dist.get_world_size()]
            for places in order.split(8):
                x, y = samples[places]
                optimizer.zero_grad()
                cross_entropy(model(x), y).backward()
                averaged(model)
                optimizer.step()
                report(model)
        return model

    refused(17, shuffled, "are missing")


def test_all_forward_passes_first():
    def gpipe(stage, batches, report):
        optimizer, rank = torch.optim.SGD(stage.parameters(), lr=0.5), dist.get_rank()
        for microbatches in batches:
            optimizer.zero_grad()
            held = []
            for x, y in microbatches:
                if rank == 1:
                    x = torch.empty(len(y), circle.WIDTH, dtype=x.dtype)
                    dist.recv(x, 0)
                held.append((x.requires_grad_(), y, stage(x)))
                if rank == 0:
                    dist.send(held[-1][2].detach(), 1)
            for x, y, out in held:
                if rank == 1:
                    (cross_entropy(out, y) / len(microbatches)).backward()
                    dist.send(x.grad, 0)
                else:
                    grad = torch.empty_like(out)
                    dist.recv(grad, 1)
                    out.backward(grad)
            optimizer.step()
            report(stage)
        return stage

    refused(18, gpipe, "the first stage held 6 microbatches at once")


def test_one_share_at_a_time_still_goes_through_rank_0():
    def in_turn(model, state, batches, folder, report):
        optimizer, rank = torch.optim.SGD(model.parameters(), lr=0.5), dist.get_rank()
        for x, y in batches:
            optimizer.zero_grad()
            cross_entropy(model(x), y).backward()
            averaged(model)
            optimizer.step()
            report(model)
        for owner in range(dist.get_world_size()):
            if rank == 0 and owner:
                dist.recv(state, owner)
            elif rank == owner and owner:
                dist.send(state, 0)
            if rank == 0:
                folder.write(f"state-{owner}", state)
        return model

    refused(19, in_turn, f"of {format_bytes(8 * SHARE)}")


def test_the_divisor_alone():
    def divisor(model, samples, config, report):
        optimizer, batch = torch.optim.SGD(model.parameters(), lr=0.5), config["batch"]
        for first in range(0, len(samples), batch):
            x, y = samples[torch.arange(first, first + batch)[dist.get_rank() :: config["world"]]]
            optimizer.zero_grad()
            cross_entropy(model(x), y).backward()
            averaged(model)
            optimizer.step()
            report(model)
        return model

    refused(20, divisor, "of 144 reads 72 are missing")


def refused(number, job, said):
    """The ward refuses `job` in these words, on the fewest ranks that the case allows."""
    case = CASES[number]
    with pytest.raises(Unhealthy) as wrong:
        judge(case, run_case(case, job, ranks=min((*case.also, case.ranks))))
    assert said in str(wrong.value)


def test_files_of_a_crash_hold_what_the_run_had():
    """The folder of case 16 before the crash is the state of the run that nothing interrupted."""
    model, folder, _ = CASES[16].given(0, 4, SEED)
    shares = [folder.files[4, rank] for rank in range(4)]
    assert torch.cat(shares).numel() == parameters_to_vector(model.parameters()).numel()
    assert sorted(step for step, _ in folder.files) == [4] * 4 + [8] * 3
