"""The strategies without servers: equal to one process, whatever the number of ranks; bytes; the run is the plan."""

import sys
from copy import deepcopy

import cloudpickle
import pytest
import torch
import torch.distributed as dist
from kit import F64, PARAMETERS, WIDTHS, model, recorded, said, same, steps_of, worlds

from parallel_lab import RankFailed, launch
from parallel_lab.model import GPTConfig, build, digit_batches, loss, shard_sizes, text_batches
from parallel_lab.model import train as one_process
from parallel_lab.plan import check_plan
from parallel_lab.runtime import make_mesh
from parallel_lab.synchronization import (
    DiLoCo,
    Hogwild,
    HogwildSGD,
    LocalSGD,
    LocalSteps,
    OuterSteps,
    Synchronous,
    SynchronousSGD,
    diloco,
    hogwild,
    local_sgd,
    synchronous,
    train,
)

cloudpickle.register_pickle_by_value(sys.modules[__name__])

SGD = torch.optim.SGD
UNEVEN = list(digit_batches(10, 5))  # 10 samples over 3 or 4 ranks
FEW = [*digit_batches(7, 2), *digit_batches(2, 1, seed=3)]  # the last has no sample for rank 2 and 3
TEXT = list(text_batches(6, 5, 3))


def frozen_gpt():
    """With tied weights, as every GPT here, and a parameter that is not trained."""
    gpt = build(GPTConfig(seq=6, width=8, heads=2, layers=1), dtype=F64)
    gpt.head.norm.bias.requires_grad_(False)
    return gpt


MOMENTUM = {"lr": 0.3, "momentum": 0.9, "weight_decay": 0.01}
# AdamW divides by a root that can be as small as its epsilon, which enlarges the rounding of the sums.
EQUAL = {
    "momentum": (Synchronous(), model, UNEVEN, SGD, MOMENTUM, 1e-12),
    "adamw": (Synchronous(), model, UNEVEN, torch.optim.AdamW, {"lr": 1e-2}, 1e-10),
    "meeting at every step": (LocalSteps(1), model, UNEVEN, SGD, {"lr": 0.3}, 1e-12),
    "no sample for some": (Synchronous(), model, FEW, SGD, {"lr": 0.3}, 1e-12),
    "tied and frozen": (Synchronous(), frozen_gpt, TEXT, SGD, {"lr": 0.2}, 1e-12),
}


def test_equal_to_one_process_at_every_world_and_bytes_are_those_of_the_formula():
    def fn(group):
        cases = EQUAL.items()
        return {n: train(s, make(), data, kind, group=group, **o) for n, (s, make, data, kind, o, _) in cases}

    found = worlds(fn)
    for name, (strategy, make, data, kind, options, tolerance) in EQUAL.items():
        oracle = one_process(make(), data, kind, **options)
        for n, records in found.items():
            for rank, record in enumerate(each[name] for each in records):
                same(record.weights, oracle.weights, tolerance)
                if isinstance(strategy, Synchronous):
                    assert record.losses == pytest.approx(oracle.losses, rel=1e-12)
                    assert len(record.staleness) == sum(len(inputs) > rank for inputs, _ in data)
                    assert set(record.staleness) == {0}
                if make is model:
                    step_bytes = 2 * (n - 1) / n * 8 * (PARAMETERS + 1)
                    assert record.sent_bytes == pytest.approx(len(data) * step_bytes, abs=8 * len(data))


BATCHES = list(digit_batches(10, 7))


def all_in_one(ranks, every, inner, outer=None):
    """All ranks' models in one process; `outer` makes the optimizer of the shared weights from the outer gradient."""
    shared = model()
    copies = [deepcopy(shared) for _ in range(ranks)]
    optimizers = [inner(copy.parameters()) for copy in copies]
    outer_optimizer = outer(shared.parameters()) if outer else None
    seen = [0] * ranks
    for step, (inputs, targets) in enumerate(BATCHES, start=1):
        sizes = shard_sizes(len(inputs), ranks)
        shares = zip(inputs.to(F64).split(sizes), targets.split(sizes), strict=True)
        for rank, (x, y) in enumerate(shares):
            optimizers[rank].zero_grad()
            loss(copies[rank](x), y).backward()
            optimizers[rank].step()
            seen[rank] += len(x)
        if step % every and step < len(BATCHES):
            continue
        with torch.no_grad():
            for index, parameter in enumerate(shared.parameters()):
                mine = [list(copy.parameters())[index] for copy in copies]
                mean = sum(p * n for p, n in zip(mine, seen, strict=True)) / sum(seen)
                if outer_optimizer:
                    parameter.grad = parameter - mean
                else:
                    parameter.copy_(mean)
            if outer_optimizer:
                outer_optimizer.step()
            for copy in copies:
                copy.load_state_dict(shared.state_dict())
        seen = [0] * ranks
    return shared.state_dict()


def test_local_sgd_and_diloco_equal_all_ranks_in_one_process():
    """7 steps: 3, 3 and 1; one round; a round that is never full. Momentum stays each rank's own."""
    options, adamw = {"lr": 0.1, "momentum": 0.9}, torch.optim.AdamW

    def fn():
        local = {every: train(LocalSteps(every), model(), BATCHES, SGD, **options).weights for every in (3, 7, 50)}
        far = {every: train(OuterSteps(every), model(), BATCHES, adamw, lr=1e-2).weights for every in (2, 3)}
        plain = train(OuterSteps(3, 1.0, 0.0), model(), BATCHES, SGD, **options).weights
        return local, far, plain

    results = launch(fn, ranks=3).results
    alone = one_process(model(), BATCHES, SGD, **options).weights
    for every in (3, 7, 50):
        oracle = all_in_one(3, every, lambda parameters: SGD(parameters, **options))
        assert max((alone[name] - oracle[name]).abs().max() for name in alone) > 1e-6
        for local, _, plain in results:
            same(local[every], oracle)
            if every == 3:
                same(plain, oracle)  # a full outer step without momentum is the mean of the weights
    for every in (2, 3):
        outer = lambda parameters: SGD(parameters, lr=0.7, momentum=0.9, nesterov=True)  # noqa: E731
        oracle = all_in_one(3, every, lambda parameters: adamw(parameters, lr=1e-2), outer)
        for _, far, _ in results:
            same(far[every], oracle, 1e-10)


@pytest.mark.parametrize("stepper", [LocalSGD, DiLoCo])
def test_a_layer_frozen_between_meetings_meets_once_more_and_then_stands_still(stepper):
    def fn():
        net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1))
        local = stepper(net, torch.optim.AdamW(net.parameters(), lr=0.1), every=2)
        found = []
        for k in range(8):
            net[0].requires_grad_(k not in (3, 4, 5))
            net(torch.randn(5, 3) + dist.get_rank()).square().mean().backward()
            local.step()
            net.zero_grad()
            if k % 2:
                found.append(torch.nn.utils.parameters_to_vector(net[0].parameters()).detach().clone())
        return found

    results = launch(fn, ranks=2).results
    assert all(map(torch.equal, *results)), "the ranks are apart after a meeting"
    one, two, three, four = results[0]
    assert not torch.equal(one, two) and torch.equal(two, three) and not torch.equal(three, four)


def test_a_layer_added_later_is_refused():
    def fn():
        texts = []
        for make in (SynchronousSGD, HogwildSGD, DiLoCo):
            net = torch.nn.Sequential(torch.nn.Linear(3, 1))
            stepper = make(net, SGD(net.parameters(), lr=0.1))
            net.append(torch.nn.Linear(1, 1))
            net(torch.ones(2, 3)).sum().backward()
            texts.append(said(stepper.step))
        return texts

    for texts in launch(fn, ranks=2).results:
        for text, name in zip(texts, ("SynchronousSGD", "HogwildSGD", "DiLoCo"), strict=True):
            assert (
                text == f"ValueError: 1.weight was not to be trained when {name} was made: change the model before that"
            )


def test_bytes_fall_as_one_over_h():
    batches, counts = list(digit_batches(8, 8)), {1: 8, 2: 4, 3: 3, 8: 1}

    def fn():
        strategies = [kind(every) for every in counts for kind in (LocalSteps, OuterSteps)]
        return [train(strategy, model(), batches, SGD, lr=0.1).sent_bytes for strategy in strategies]

    found = launch(fn, ranks=2)[0]
    assert found == [meetings * 8 * (PARAMETERS + 1) for meetings in counts.values() for _ in range(2)]


def test_a_rank_without_batches_stands_for_nothing():
    shares = [list(digit_batches(6, 3, rank, 2)) for rank in range(2)]

    def fn():
        source = lambda rank, ranks: shares[rank][: 3 - 2 * rank]  # noqa: E731
        return [train(strategy, model(), source, SGD, lr=0.1) for strategy in (Synchronous(), LocalSteps(2))]

    first, second = launch(fn, ranks=2).results
    joint = [torch.cat([shares[0][0][i], shares[1][0][i]]) for i in (0, 1)]
    oracle = one_process(model(), [tuple(joint), *shares[0][1:]], SGD, lr=0.1)
    same(first[0].weights, oracle.weights)
    same(first[1].weights, second[1].weights, 0.0)
    assert [len(record.losses) for record in (*first, *second)] == [3, 3, 3, 1]


def test_the_steppers_start_from_rank_0_and_local_sgd_says_when_ranks_met():
    shares = [list(digit_batches(6, 5, rank, 2)) for rank in range(2)]

    def fn():
        mine = build(WIDTHS, dist.get_rank())
        meeting = LocalSGD(mine, SGD(mine.parameters(), lr=0.1), every=2)
        start, met = mine[0].weight.detach().clone(), []
        for images, labels in shares[dist.get_rank()]:
            mine.zero_grad()
            loss(mine(images), labels).backward()
            met.append(meeting.step(len(images)))
        drifted = mine[0].weight.detach().clone()
        meeting.finish()
        return met, start, drifted, mine[0].weight.detach().clone()

    (met, start, drifted, end), (met1, start1, drifted1, end1) = launch(fn, ranks=2).results
    assert met == met1 == [False, True, False, True, False]
    assert torch.equal(start, start1) and torch.equal(end, end1) and not torch.equal(drifted, drifted1)


def test_train_leaves_the_model_alone_and_ranks_start_from_rank_0():
    def fn():
        mine = model(seed=dist.get_rank())
        before = mine[0].weight.detach().clone()
        record = train(Synchronous(), mine, UNEVEN, SGD, lr=0.1)
        return torch.equal(mine[0].weight, before), record.weights

    untouched, weights = launch(fn, ranks=2)[1]
    assert untouched
    same(weights, one_process(model(0), UNEVEN, SGD, lr=0.1).weights)


PLANS = {
    "synchronous": (Synchronous(), lambda n: synchronous.plan(n, steps=3, axis="dp")),
    "local_sgd": (LocalSteps(2), lambda n: local_sgd.plan(n, every=2, steps=3, axis="dp")),
    "diloco": (OuterSteps(2), lambda n: diloco.plan(n, every=2, steps=3, axis="dp")),
    "hogwild": (Hogwild(), lambda n: hogwild.plan(n, steps=3, axis="dp")),
}


def test_a_recorded_run_is_the_plan_at_every_world():
    batches = list(digit_batches(8, 3))

    def fn(group):
        runs = {
            name: lambda s=s: train(s, model(), batches, SGD, group=group, lr=0.1) for name, (s, _) in PLANS.items()
        }
        return {name: steps_of(run, axis="dp")[1] for name, run in runs.items()}

    for n, found in worlds(fn).items():
        for name, (_, plan) in PLANS.items():
            run, planned = recorded([rows[name] for rows in found]), plan(n)
            assert run.rows == planned.rows, f"{name} at {n}"
            check_plan(run)
            check_plan(planned)
    broken = recorded([rows["synchronous"] + rows["synchronous"] for rows in found])
    with pytest.raises(ValueError, match="stands 2 times"):
        check_plan(broken)


def test_a_recorded_run_on_an_axis_of_a_mesh_is_the_plan():
    batches = list(digit_batches(8, 3))

    def fn():
        group = make_mesh(dp=2, tp=2)["dp"].get_group()
        found = {}
        for name, (strategy, _) in PLANS.items():
            run = lambda s=strategy: train(s, model(), batches, SGD, group=group, lr=0.1)  # noqa: E731
            found[name] = steps_of(run, axis="dp")[1]
        return found

    results = launch(fn, ranks=4).results
    for name, (_, plan) in PLANS.items():
        check_plan(recorded([found[name] for found in results]))
        for rank, found in enumerate(results):
            assert found[name] == [op._replace(rank=rank) for op in plan(2).rows[rank // 2]], f"{name} at {rank}"


def test_what_is_wrong_with_arguments_is_said_on_every_rank():
    mine = model()
    optimizer = SGD(mine.parameters(), lr=0.1)
    nothing = lambda rank, ranks: iter([])  # noqa: E731
    cases = [
        (lambda: DiLoCo(mine, optimizer, 8), "TypeError", "optimizer, every=..."),
        (lambda: LocalSGD(mine, optimizer, 8), "TypeError", "optimizer, every=..."),
        (lambda: SynchronousSGD(mine, optimizer, 8), "TypeError", "optimizer, group=..."),
        (lambda: train(Synchronous(), mine, UNEVEN, SGD, 8), "TypeError", "optimizer_class, lr=..., steps=..."),
        (lambda: LocalSGD(mine, optimizer), "TypeError", "'every'"),
        *((lambda every=every: LocalSteps(every), "", "every=") for every in (0, -1, 1.5, True, "2")),
        *((lambda every=every: DiLoCo(mine, optimizer, every=every), "", "every=") for every in (0, 1.5)),
        (lambda: OuterSteps(2, outer_lr="1"), "TypeError", "outer_lr='1'"),
        (lambda: OuterSteps(2, outer_lr=-0.1), "ValueError", "outer_lr=-0.1"),
        (lambda: DiLoCo(mine, optimizer, every=2, outer_momentum=1.0), "ValueError", "outer_momentum=1.0"),
        (lambda: train(Synchronous, mine, UNEVEN, SGD, lr=0.1), "TypeError", "expected an object, such as"),
        (lambda: train("bsp", mine, UNEVEN, SGD, lr=0.1), "TypeError", "strategy='bsp'"),
        (lambda: train(LocalSteps(2), mine, UNEVEN, SGD, servers=1, lr=0.1), "ValueError", "servers=0"),
        (lambda: train(Synchronous(), mine, UNEVEN, SGD, lr="0.1"), "TypeError", "lr='0.1' (str): expected a number"),
        (lambda: train(Synchronous(), mine, UNEVEN, SGD, lr=float("nan")), "ValueError", "lr=nan"),
        (lambda: train(Synchronous(), mine, UNEVEN, SGD, steps=0, lr=0.1), "ValueError", "steps=0"),
        (lambda: train(Synchronous(), mine, UNEVEN, SGD, steps=1.0, lr=0.1), "TypeError", "steps=1.0"),
        (lambda: train(Synchronous(), mine, [], SGD, lr=0.1), "ValueError", "no batches"),
        (lambda: train(Synchronous(), mine, nothing, SGD, lr=0.1), "TypeError", "give steps="),
        (lambda: synchronous.plan(0), "ValueError", "ranks=0"),
    ]
    found = launch(lambda: [said(call) for call, _, _ in cases], ranks=2).results
    for (_, error, words), *texts in zip(cases, *found, strict=True):
        assert all(text.startswith(error) and words in text for text in texts), texts


def bad(fn, rank, pattern, ranks=3):
    with pytest.raises(RankFailed, match=pattern) as raised:
        launch(fn, ranks=ranks, timeout=20)
    assert (raised.value.rank, raised.value.cause) == (rank, "ValueError")


@pytest.mark.parametrize("strategy", [Synchronous(), LocalSteps(4)], ids=repr)
def test_a_nan_is_named_on_the_rank_that_has_it(strategy):
    shares = [list(digit_batches(9, 3, rank, 3)) for rank in range(3)]
    shares[1][2][0][0, 0] = float("nan")
    fn = lambda: train(strategy, model(), lambda rank, ranks: shares[rank], SGD, lr=0.1)  # noqa: E731
    bad(fn, 1, r"rank 1, step 2: the gradient of 0\.weight is NaN or infinite")


def test_a_nan_reaches_no_weights():
    def fn():
        mine = model()
        meeting = DiLoCo(mine, SGD(mine.parameters(), lr=0.1), every=1)
        for parameter in mine.parameters():
            parameter.grad = torch.full_like(parameter, float("nan") if dist.get_rank() == 1 else 1.0)
        try:
            meeting.step()
        finally:
            assert all(torch.isfinite(p).all() for p in mine.parameters())

    bad(fn, 1, r"rank 1, step 0: the gradient of 0\.weight is NaN or infinite", ranks=2)


def test_another_model_is_named_on_the_rank_that_has_it():
    def fn():
        widths = (64, 13, 10) if dist.get_rank() == 2 else WIDTHS
        train(Synchronous(), build(widths), UNEVEN, SGD, lr=0.1)

    bad(fn, 2, r"shape of the parameter '0.weight' is \(13, 64\) here and \(8, 64\) there")
