"""A checkpoint saved at n ranks goes on at m ranks as if nothing had happened, or says exactly why it cannot."""

import pickle
import re

import pytest
import torch
import torch.distributed as dist
from torch import nn

from parallel_lab import launch
from parallel_lab.data_parallel import Zero1, Zero2, Zero3, average_gradients, consolidate, reshard
from parallel_lab.model import GPTConfig, build, loss, train
from parallel_lab.model.data import text_batches

CONFIG = GPTConfig(seq=8, width=12, heads=2, layers=2)
BATCH, STEPS = 12, 4
TECHNIQUES = ("zero1", "zero2", "zero3")
TOLERANCE = 1e-12  # float64


class Training:
    """One technique with one way to step, save and load."""

    def __init__(self, technique, optimizer_class=torch.optim.AdamW, config=CONFIG, seed=0, lr=0.01, **settings):
        self.technique = technique
        self.module = build(config, seed=seed, dtype=torch.float64)
        self.module.embedding.positions.weight.requires_grad_(False)
        if technique == "zero1":
            self.model = self.module
            self.optimizer = Zero1(self.module.named_parameters(), optimizer_class, lr=lr, **settings)
        elif technique == "zero2":
            self.model = Zero2(self.module, optimizer_class, bucket_bytes=3000, lr=lr, **settings)
            self.optimizer = self.model.optimizer
        else:
            self.model = Zero3(self.module)
            self.optimizer = optimizer_class(self.model.parameters(), lr=lr, **settings)

    def run(self, steps):
        n, rank = dist.get_world_size(), dist.get_rank()
        for step, (x, y) in enumerate(text_batches(CONFIG.seq, BATCH, STEPS, rank=rank, world=n)):
            if step in steps:
                self.model.zero_grad()
                loss(self.model(x), y).backward()
                if self.technique == "zero1":
                    average_gradients(self.module)
                (self.model if self.technique == "zero2" else self.optimizer).step()
        return self

    def save(self):
        if self.technique == "zero3":
            return self.model.state_dict(self.optimizer)
        return (self.optimizer if self.technique == "zero1" else self.model).state_dict()

    def load(self, state):
        if self.technique == "zero3":
            self.model.load_state_dict(state, self.optimizer)
        else:
            (self.optimizer if self.technique == "zero1" else self.model).load_state_dict(state)
        return self

    def weights(self):
        if self.technique == "zero3":
            return self.model.full_state_dict()
        return {name: value.clone() for name, value in self.module.state_dict().items()}


def model():
    model = build(CONFIG, dtype=torch.float64)
    model.embedding.positions.weight.requires_grad_(False)
    return model


def apart(some, others):
    return max((some[name] - others[name]).abs().max().item() for name in others)


def saved_by(technique, n, **settings):
    return launch(lambda: Training(technique, **settings).run(range(2)).save(), ranks=n).results


@pytest.mark.parametrize(("n", "m"), [(2, 2), (1, 3), (3, 2), (2, 4), (4, 1)])
@pytest.mark.parametrize("technique", TECHNIQUES)
def test_goes_on_at_another_number_of_ranks(technique, n, m):
    expected = train(model(), text_batches(CONFIG.seq, BATCH, STEPS), torch.optim.AdamW, lr=0.01).weights
    shards = reshard(list(reversed(saved_by(technique, n))), m)

    def go_on():
        # Other weights, another seed and another rate: all of them have to come from the checkpoint.
        # Zero1, an optimizer, saves no frozen parameters: they are the model's to restore, here by its seed.
        training = Training(technique, seed=0 if technique == "zero1" else 1, lr=0.5).run(range(1))
        return training.load(shards[dist.get_rank()]).run(range(2, 4)).weights()

    for weights in launch(go_on, ranks=m).results:
        assert apart(weights, expected) < TOLERANCE


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_consolidated_moments_are_those_of_one_process(technique):
    whole = consolidate(saved_by(technique, 3))
    alone = model()
    optimizer = torch.optim.AdamW(alone.parameters(), lr=0.01)
    for x, y in list(text_batches(CONFIG.seq, BATCH, STEPS))[:2]:
        optimizer.zero_grad()
        loss(alone(x), y).backward()
        optimizer.step()
    for name, parameter in alone.named_parameters():
        if not parameter.requires_grad:
            continue
        state = optimizer.state[parameter]
        assert (whole["parameters"][name] - parameter).abs().max() < TOLERANCE
        assert whole["state"][name].keys() == state.keys()
        for key in state:
            torch.testing.assert_close(whole["state"][name][key], state[key], rtol=0, atol=TOLERANCE)
    assert whole["groups"][0]["lr"] == 0.01


def test_resharding_there_and_back_changes_nothing_and_pieces_hold_only_themselves():
    shards = saved_by("zero3", 3)
    again = reshard(reshard(shards, 5), 3)
    for mine, other in zip(shards, again, strict=True):
        assert mine["pieces"].keys() == other["pieces"].keys()
        for name, piece in mine["pieces"].items():
            assert torch.equal(piece["values"], other["pieces"][name]["values"])
            assert piece["values"].untyped_storage().nbytes() == piece["values"].nbytes
    sizes = [len(pickle.dumps(shard)) for shard in shards]
    assert max(sizes) < 0.5 * len(pickle.dumps(reshard(shards, 1)))


def test_master_copies_are_what_is_saved():
    def fn():
        net = nn.Linear(4, 4, bias=False).to(torch.bfloat16)
        nn.init.ones_(net.weight)
        optimizer = Zero1(net.parameters(), torch.optim.SGD, lr=1.0, master_dtype=torch.float32)
        net.weight.grad = torch.full_like(net.weight, 2**-10)
        optimizer.step()
        return optimizer.state_dict()

    assert consolidate(launch(fn, ranks=2).results)["parameters"]["0"].unique().tolist() == [1 - 2**-10]


def test_buffers_and_frozen_parameters_come_back():
    def fn():
        net = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
        net[0].bias.requires_grad_(False)
        nn.init.constant_(net[0].bias, 2.0)
        zero = Zero2(net, torch.optim.SGD, lr=0.1)
        net[1].running_mean.fill_(7.0)
        state = zero.state_dict()
        net[1].running_mean.zero_()
        nn.init.zeros_(net[0].bias)
        zero.load_state_dict(state)
        return net[1].running_mean.tolist() + net[0].bias.tolist()

    assert launch(fn, ranks=2)[1] == [7.0] * 3 + [2.0] * 3


def refusal(technique, shards, ranks, pick=None, **settings):
    """What loading raises on each rank, and whether the weights and moments stayed; every rank catches its own."""

    def fn():
        training = Training(technique, **settings).run(range(1))
        before, rank = training.save(), dist.get_rank()
        try:
            training.load(shards[pick(rank) if pick else rank])
            text = ""
        except ValueError as error:
            text = str(error)
            if "cannot go on" not in text and ranks > 1:
                dist.barrier()  # lets those go who wait for the culprit
        after = training.save()
        same = all(torch.equal(before["pieces"][k]["values"], after["pieces"][k]["values"]) for k in before["pieces"])
        return text, same

    results = launch(fn, ranks=ranks).results
    assert all(same for _, same in results), "something was changed"
    return [text for text, _ in results]


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_what_cannot_be_loaded_says_why(technique):
    two = saved_by(technique, 2)
    three = reshard(two, 3)
    assert "saved by 3 ranks, and this group has 2: pass reshard(shards, 2)" in refusal(technique, three, 2)[0]
    assert "the shard of rank 0, and this is rank 1" in refusal(technique, two, 2, pick=lambda _: 0)[1]
    wide = GPTConfig(seq=8, width=24, heads=2, layers=2)
    text = refusal(technique, two, 2, config=wide)[0]  # of the first parameter that differs
    assert re.search(r"\w+\.\w+ is \(.*12,?\) in the checkpoint and \(.*24,?\) in this model", text)
    deep = GPTConfig(seq=8, width=12, heads=2, layers=3)
    assert "the checkpoint lacks the parameter blocks.2." in refusal(technique, two, 2, config=deep)[0]
    shallow = GPTConfig(seq=8, width=12, heads=2, layers=1)
    assert "parameters that this model lacks: " in refusal(technique, two, 2, config=shallow)[1]
    assert "of AdamW, and here is SGD" in refusal(technique, two, 2, optimizer_class=torch.optim.SGD)[0]
    other = saved_by("zero3" if technique == "zero1" else "zero1", 2)
    assert "cannot be loaded into " + technique in refusal(technique, other, 2)[0]
    assert "no state_dict() of Zero1" in refusal(technique, [{}, {}], 2)[0]


def test_a_refusal_of_one_rank_is_the_one_reported_and_keeps_the_others():
    two = saved_by("zero2", 2)
    texts = refusal("zero2", two, 2, pick=lambda rank: 0)
    assert "cannot go on" in texts[0] and "shard of rank 0" in texts[1]


def test_shards_that_do_not_belong_together_are_refused():
    shards = saved_by("zero2", 3)
    with pytest.raises(ValueError, match=r"saved by 3 ranks, but the shards of ranks \[0, 2\] were given: missing"):
        consolidate([shards[0], shards[2]])
    with pytest.raises(ValueError, match=r"ranks \[0, 0, 2\] were given: missing \[1\]"):
        reshard([shards[0], shards[0], shards[2]], 2)
    with pytest.raises(ValueError, match="no shards"):
        consolidate([])
    with pytest.raises(ValueError, match="another ranks"):
        consolidate([shards[0], reshard(shards, 2)[1]])
    with pytest.raises(ValueError, match="expected at least 1"):
        reshard(shards, 0)
    broken = [dict(shard, pieces=dict(shard["pieces"])) for shard in shards]
    name = next(iter(broken[1]["pieces"]))
    del broken[1]["pieces"][name]
    with pytest.raises(ValueError, match=f"the pieces of {name} "):
        consolidate(broken)
