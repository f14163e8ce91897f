"""What each rank really holds under stage 3, by live tensors: its formula after a step, a bound within it."""

import gc

import torch
import torch.distributed as dist
from torch import nn

from parallel_lab import launch
from parallel_lab.data_parallel import Zero3, formulas
from parallel_lab.trace import recorder
from parallel_lab.trace.memory import held_bytes, live_bytes, sample
from parallel_lab.view import draw_memory

WIDTH, LAYERS = 24, 6  # rows for 1, 2, 3 and 4 ranks, so nothing is padded
LAYER = WIDTH * (WIDTH + 1)
PSI = LAYERS * LAYER


class Training:
    def __init__(self, group=None, **settings):
        net = nn.Sequential(*[nn.Linear(WIDTH, WIDTH) for _ in range(LAYERS)])
        self.model = Zero3(net, group=group, **settings)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.01)

    def step(self):
        self.model(torch.ones(1, WIDTH)).float().sum().backward()
        self.optimizer.step()

    def counts(self):
        """Bytes of Adam's step counts, which the formulas leave out."""
        return sum(4 for state in self.optimizer.state.values() if state)


def start():
    """The live bytes now. What exists already is left out of later counts: walking all of torch takes long."""
    gc.collect()
    gc.freeze()
    return live_bytes()


def at_rest(group, expected, before, training):
    """The live bytes of `training` once they are `expected`; the backend's threads may let go of messages late."""
    dist.barrier(group)
    for _ in range(100):
        if (held := live_bytes() - before - training.counts()) == expected:
            break
    return held


def test_holds_what_its_formula_says_after_a_step_and_no_more_than_is_stated_within_it():
    def fn():
        held = {}
        for n in range(1, 5):
            group = dist.new_group(range(n))
            for mixed in ((False, True) if n == 2 else (False,)) if dist.get_rank() < n else ():
                dist.barrier(group)
                before, peaks = start(), []
                training = Training(group, compute_dtype=torch.bfloat16 if mixed else None)
                training.step()
                if n == 2 and not mixed:
                    for layer in training.model.module:
                        layer.register_full_backward_hook(lambda *_, p=peaks, b=before: p.append(live_bytes() - b))
                training.step()
                expected = formulas.held_bytes("zero3", PSI, n, mixed)
                held[n, mixed] = expected, at_rest(group, expected, before, training), max(peaks, default=0)
                del training
        return held

    for held in launch(fn, ranks=4).results:
        assert all(seen == expected for expected, seen, _ in held.values()), held
        if (2, False) in held:
            # 1 + prefetch units, one message, the gradients of two units, one on its way there; and activations
            most = held[2, False][0] + (2 + 1 + 2 + 1) * 4 * LAYER + 4 * WIDTH * 4 * LAYERS
            assert held[2, False][2] <= most < held[2, False][0] + 8 * PSI


def test_whole_parameters_that_are_never_dropped_are_caught():
    def fn():
        before = start()
        training = Training()
        training.model.reshard = lambda unit, small=False: None
        training.step()
        kept = formulas.held_bytes("zero3", PSI, 2) + 4 * PSI
        return at_rest(dist.group.WORLD, kept, before, training) - kept

    assert launch(fn, ranks=2).results == [0, 0]


def test_at_most_one_and_prefetch_units_are_unsharded():
    def counted(prefetch):
        training, counts = Training(prefetch=prefetch), []

        def count(*_):
            counts.append(sum(unit.whole is not None or unit.gathering is not None for unit in training.model.units))

        for layer in training.model.module:
            layer.register_forward_pre_hook(count)
            layer.register_full_backward_hook(count)
        for _ in range(2):
            training.step()
        count()
        return counts

    for each in launch(lambda: [counted(prefetch) for prefetch in (0, 1, 2)], ranks=2).results:
        for prefetch, counts in enumerate(each):
            assert max(counts) == 1 + prefetch and counts[-1] == 0 and len(counts) == 2 * 2 * LAYERS + 1


def test_kinds_of_memory_are_seen_and_drawn_over_time():
    def fn():
        training = Training()
        for _ in range(2):
            training.step()
            sample(training.model, training.optimizer)
        held = held_bytes(training.model, training.optimizer)
        held["optimizer_state"] -= training.counts()
        return held, max(s.bytes for s in recorder().samples if s.kind == "unsharded")

    run = launch(fn, ranks=2)
    half = 4 * PSI // 2
    assert run.results == [({"parameters": half, "gradients": half, "optimizer_state": 2 * half}, 2 * 4 * LAYER)] * 2
    last = [s.bytes for s in run.trace.memory if s.rank == 1 and s.kind in ("unsharded", "buckets")][-2:]
    assert last == [0, 0] and run.trace.peak_bytes(0) > formulas.held_bytes("zero3", PSI, 2)
    assert "unsharded" in draw_memory(run).text and "buckets" in draw_memory(run).text


def test_a_large_unit_is_whole_once_and_shards_are_seen_from_the_first_forward_pass_on():
    def fn():
        net = Zero3(nn.Sequential(nn.Embedding(600, 16), nn.Linear(16, 16), nn.Linear(16, 16)))
        net(torch.arange(4)).sum().backward()
        return [(s.kind, s.bytes) for s in recorder().samples]

    large, small = 4 * 600 * 16, 4 * 16 * 17
    for samples in launch(fn, ranks=2).results:
        assert max(size for kind, size in samples if kind == "unsharded") == large + small
        assert max(size for kind, size in samples if kind == "buckets") <= large + small
        assert {size for kind, size in samples if kind == "parameters"} == {(large + 2 * small) // 2}
        assert max(size for kind, size in samples if kind == "gradients") <= (large + 2 * small) // 2
