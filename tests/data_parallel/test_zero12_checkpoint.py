"""A checkpoint of stage 1 or 2 goes on in either, at any number of ranks, in other buckets, or says why it cannot."""

import torch
import torch.distributed as dist
from torch import nn

from parallel_lab import launch
from parallel_lab.data_parallel import Zero1, Zero2, average_gradients, checkpoint

TOLERANCE = 1e-9  # float64; Adam's division makes rounding errors of small gradients larger


class Net(nn.Module):
    """Tied, frozen, without dims, and with a buffer."""

    def __init__(self, width=5, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.first, self.norm = nn.Linear(3, width), nn.BatchNorm1d(width, momentum=None)
        self.last, self.again, self.scale = nn.Linear(width, 2), nn.Linear(width, 2), nn.Parameter(torch.tensor(2.0))
        self.again.weight = self.last.weight
        self.first.bias.requires_grad_(False)
        self.double()

    def forward(self, x):
        x = torch.tanh(self.norm(self.first(x))) * self.scale
        return self.last(x) + self.again(x)


class Training:
    """One technique with one way to step; every rank takes the whole batch, so that all worlds do the same."""

    def __init__(self, technique, group, seed=0, lr=0.1, optimizer=torch.optim.AdamW, bucket_bytes=100, **net):
        self.net, self.group = Net(seed=seed, **net), group
        if technique == "zero1":
            self.model = self.net
            self.stepper = Zero1(self.net.named_parameters(), optimizer, lr=lr, group=group)
        else:
            own = {"lr": lr, "bucket_bytes": bucket_bytes, "group": group}
            self.model = self.stepper = Zero2(self.net, optimizer, **own)
        self.technique = technique

    def steps(self, count, first=0):
        for k in range(first, first + count):
            self.stepper.zero_grad()
            x = torch.linspace(-1, 1 + k, 12, dtype=torch.float64).view(4, 3)
            self.model(x).square().sum().backward()
            if self.technique == "zero1":
                average_gradients(self.net, group=self.group)
            self.stepper.step()
        return self

    def weights(self):
        return {name: p.detach().clone() for name, p in self.net.named_parameters()}


def one_process(count):
    net = Net()
    optimizer = torch.optim.AdamW([p for p in net.parameters() if p.requires_grad], lr=0.1)
    for k in range(count):
        optimizer.zero_grad()
        net(torch.linspace(-1, 1 + k, 12, dtype=torch.float64).view(4, 3)).square().sum().backward()
        optimizer.step()
    return net, optimizer


def save(technique, group, n):
    """The shards of the ranks of `group`, on all ranks; its ranks train first."""
    everyone = [None] * dist.get_world_size()
    mine = Training(technique, group).steps(2).stepper.shard_state() if group else None
    dist.all_gather_object(everyone, mine)
    return everyone[:n]


def apart(some, others):
    assert some.keys() == others.keys()
    return max((some[name] - others[name]).abs().max().item() for name in others)


def test_goes_on_at_any_world_in_either_stage():
    def fn():
        groups = {n: dist.new_group(range(n)) if n < 4 else dist.group.WORLD for n in (1, 2, 3, 4)}
        expected = dict(one_process(4)[0].named_parameters())
        off = []
        for n, m in ((1, 3), (3, 2), (2, 4), (4, 1)):
            for saved in ("zero1", "zero2"):
                shards = save(saved, groups[n] if dist.get_rank() < n else None, n)
                for loaded in ("zero1", "zero2") if dist.get_rank() < m else ():
                    # Other weights, another rate and moments, other buckets: all has to come from the checkpoint.
                    training = Training(loaded, groups[m], seed=1, lr=0.5, bucket_bytes=1000).steps(1)
                    training.stepper.load_shard_state(shards[::-1])
                    off.append(apart(training.steps(2, first=2).weights(), expected))
        return off

    for rank, off in enumerate(launch(fn, ranks=4).results):
        assert len(off) == 4 * sum(rank < m for m in (3, 2, 4, 1)) and max(off) < TOLERANCE


def test_consolidated_it_is_the_state_of_one_process():
    shards = launch(lambda: Training("zero2", dist.group.WORLD).steps(2).stepper.shard_state(), ranks=3).results
    whole, (net, optimizer) = checkpoint.consolidate(shards), one_process(2)
    for name, parameter in net.named_parameters():
        assert (whole["parameters"][name] - parameter).abs().max() < TOLERANCE
        state = optimizer.state.get(parameter, {})
        assert whole["state"][name].keys() == state.keys()
        for key, value in state.items():
            torch.testing.assert_close(whole["state"][name][key], value, rtol=0, atol=TOLERANCE)
    assert (whole["replicated"]["norm.running_mean"] - net.norm.running_mean).abs().max() < TOLERANCE
    assert whole["groups"][0]["lr"] == 0.1
    for start, stop, values in (piece for shard in shards for piece in shard["parameters"]["first.weight"]["pieces"]):
        assert values.untyped_storage().nbytes() == 8 * (stop - start), "a piece holds more than itself"


def test_master_copies_buffers_and_frozen_parameters_come_back():
    def fn():
        net = nn.Linear(4, 4, bias=False).to(torch.bfloat16)
        nn.init.ones_(net.weight)
        optimizer = Zero1(net.parameters(), torch.optim.SGD, lr=1.0, master_dtype=torch.float32)
        net.weight.grad = torch.full_like(net.weight, 2**-10)
        optimizer.step()
        training = Training("zero2", dist.group.WORLD)
        training.net.norm.running_mean.fill_(7.0)
        nn.init.constant_(training.net.first.bias, 2.0)
        state = training.stepper.shard_state()
        training.net.norm.running_mean.zero_()
        nn.init.zeros_(training.net.first.bias)
        everyone = [None] * 2
        dist.all_gather_object(everyone, state)
        training.stepper.load_shard_state(everyone)
        back = training.net.norm.running_mean.tolist() + training.net.first.bias.tolist()
        return optimizer.shard_state(), back

    run = launch(fn, ranks=2)
    masters = checkpoint.consolidate([shard for shard, _ in run.results])["parameters"]["0"]
    assert masters.unique().tolist() == [1 - 2**-10]
    assert run[1][1] == [7.0] * 5 + [2.0] * 5


def test_what_cannot_be_loaded_says_why_and_changes_nothing():
    cases = {
        "is (5, 3) in the checkpoint and (6, 3) in this model": {"width": 6},
        "of AdamW, and here is SGD": {"optimizer": torch.optim.SGD},
        "give the shards of all of them": {"pick": lambda shards: shards[:1]},
        "no shard_state() of Zero1": {"pick": lambda shards: [{}]},
        "no shards": {"pick": lambda shards: []},
    }

    def fn():
        shards, found = save("zero1", dist.group.WORLD, 2), {}
        for text, case in cases.items():
            pick = case.get("pick", list)
            training = Training("zero2", dist.group.WORLD, **{k: v for k, v in case.items() if k != "pick"}).steps(1)
            before = repr(training.stepper.shard_state())
            try:
                training.stepper.load_shard_state(pick(shards))
            except ValueError as error:
                found[text] = str(error), before == repr(training.stepper.shard_state())
                if "cannot go on" not in str(error):
                    dist.barrier()  # lets those go who wait for the culprit
        return found

    results = launch(fn, ranks=2).results
    for text in cases:
        told = [each[text] for each in results]
        assert any(text in message for message, _ in told), told
        assert all(same for _, same in told)
