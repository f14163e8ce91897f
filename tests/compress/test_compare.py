"""The table: what it counts, what methods may look at, and the ladder of chapter 13."""

from copy import deepcopy

import pytest
import torch
from torch import nn

from parallel_lab.compress import compare, convert, formulas, gptq_model, prepare, round_to_nearest
from parallel_lab.data_parallel import DDP
from parallel_lab.model import GPTConfig, digit_images

pytestmark = pytest.mark.usefixtures("by_value")
SMALL = compare.digits((64, 16, 10), batch=32, steps=20)
WEIGHTS, BIASES = 64 * 16 + 16 * 10, 16 + 10


def zeros(model, data):
    """Half of the first weight is 0; all of it is trained on."""
    with torch.no_grad():
        model[0].weight[:, ::2] = 0
    return model


def last_layer(model, data):
    model[0].requires_grad_(False)
    return model


def smaller(model, data):
    return nn.Sequential(nn.Linear(64, 4), nn.ReLU(), nn.Linear(4, 10))


def frozen(model, data):
    return model.requires_grad_(False)


METHODS = {
    "dense": compare.dense,
    "int4": lambda model, data: round_to_nearest(model, 4, per="channel"),
    "biases behind codes": lambda model, data: (made := round_to_nearest(model, 4), made),
    "zeros": zeros,
    "last layer": last_layer,
    "smaller": smaller,
    "frozen": frozen,
}


@pytest.fixture(scope="module")
def found():
    return compare.table(SMALL, METHODS, seeds=(0, 1))


def test_stored_bytes(found):
    counted = {name: found.column(name, "stored_bytes")[0] for name in METHODS}
    dense = 4 * (WEIGHTS + BIASES)
    assert counted["dense"] == counted["last layer"] == dense
    assert counted["int4"] == WEIGHTS // 2 + 4 * 26 + 4 * BIASES  # codes, a scale for each row, biases
    assert counted["zeros"] == dense - 4 * 64 * 16 + formulas.sparse_bytes(64 * 16, 64 * 8)
    assert counted["smaller"] == 4 * (4 * 65 + 10 * 5)


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_sent_bytes_are_those_of_the_formula(found, ranks):
    """Zeros and codes save nothing of what training sends; fewer numbers that are trained do."""
    trained = [WEIGHTS + BIASES, BIASES, 16 * 10 + 10, 0]
    model, data = SMALL.model(0), SMALL.data(0)
    models = [METHODS[name](deepcopy(model), data) for name in ("dense", "biases behind codes", "last layer", "frozen")]
    models = [made[1] if isinstance(made, tuple) else made for made in models]
    wanted = [formulas.data_parallel_bytes(numbers, ranks) for numbers in trained]
    assert compare.sent_bytes(models, SMALL.batch, ranks=ranks) == pytest.approx(wanted, abs=8)
    if ranks == 2:
        for name, numbers in (("dense", 0), ("int4", 0), ("zeros", 0), ("biases behind codes", 1), ("last layer", 2)):
            assert found.column(name, "sent_bytes") == [4 * trained[numbers]] * 2


def test_sent_bytes_of_ddp_are_the_same():
    assert compare.sent_bytes([SMALL.model(0)], SMALL.batch, wrap=DDP) == [4 * (WEIGHTS + BIASES)]


def test_rows_have_quality_change_and_time(found):
    images, labels = digit_images("test")
    right = (SMALL.model(1)(images).argmax(1) == labels).double().mean().item()
    assert found.column("dense", "quality")[1] == right > 0.5
    assert found.column("dense", "change") == [0, 0]
    for name in METHODS:
        whole, changed = found.column("dense", "quality"), found.column(name, "change")
        assert found.column(name, "quality") == pytest.approx([a + b for a, b in zip(whole, changed, strict=True)])
        assert min(found.column(name, "time")) > 0
    lines = str(found).splitlines()
    assert len(lines) == 1 + len(METHODS) and "accuracy" in lines[0] and "±" in lines[1]
    assert len({len(line) for line in lines}) == 1


def test_a_bar_says_how_far_it_is(monkeypatch):
    said = []

    class Bar:
        def __call__(self, rank, label, done, total):
            said.append((label, done, total))

        def close(self):
            said.append("closed")

    monkeypatch.setattr(compare, "Bar", Bar)
    compare.table(SMALL, {"dense": compare.dense}, seeds=(0, 1))
    assert said == [("seed 0, dense", 0, 2), ("seed 1, dense", 1, 2), ("all seeds", 2, 2), "closed"]


@pytest.mark.parametrize("task", [SMALL, compare.language(GPTConfig(seq=16, width=16, heads=2), steps=2, held_out=8)])
def test_methods_are_shown_training_data_alone(task):
    """No example that measures quality is among those that `data` gives; the model of a seed stays as it was."""
    held_out, watched = [], task.model(0)
    before = deepcopy(watched.state_dict())
    hook = watched.register_forward_pre_hook(lambda _, args: held_out.append(args[0]))
    task.measure(watched)
    hook.remove()
    secret = {tuple(row.tolist()) for inputs in held_out for row in inputs}
    given = {tuple(row.tolist()) for inputs, _ in task.data(0).batches(20) for row in inputs}
    assert secret and given and not secret & given
    task.data(0).tuned(deepcopy(watched), 2)
    gptq_model(watched, task.data(0).batches(1), 4)
    assert all(torch.equal(before[name], now) for name, now in watched.state_dict().items())


def test_the_ladder():
    """Two bits a weight: GPTQ and training give back accuracy; what is trained as long without codes is the control."""

    def trained(model, data):
        made = data.tuned(prepare(model, 2, per="channel"), 40, lr=0.001)
        return convert(made), made

    rungs = {
        "per tensor": lambda model, data: round_to_nearest(model, 2),
        "per channel": lambda model, data: round_to_nearest(model, 2, per="channel"),
        "gptq": lambda model, data: gptq_model(model, data.batches(4), 2),
        "trained": trained,
        "longer": compare.longer(40, lr=0.001),
    }
    found = compare.table(compare.digits(), rungs, seeds=range(3))
    dense = 4 * (64 * 128 + 128 + 128 * 10 + 10)  # rounded weights are trained in float32
    assert all(found.column(name, "sent_bytes") == [dense] * 3 for name in rungs)
    lost = {name: -sum(found.column(name, "change")) / 3 for name in rungs}
    assert lost["per tensor"] > lost["per channel"] - 0.005  # of twelve seeds two are the other way round
    assert min(lost["per tensor"], lost["per channel"]) > max(lost["gptq"], lost["trained"]) + 0.005
    assert abs(lost["trained"] - lost["longer"]) < 0.02
