"""Every technique on one small model, as a function of the group that it runs on: what these tests share."""

from dataclasses import replace

import torch

from parallel_lab import expert_parallel as experts
from parallel_lab import model
from parallel_lab.compress.gradients import OneBit, PowerSGD, TopK
from parallel_lab.context_parallel import context_parallel, positions, sequence_loss, shard_sequence
from parallel_lab.data_parallel import DDP, Zero1, Zero2, Zero3, average_gradients
from parallel_lab.expert_parallel import RemoteExperts
from parallel_lab.model.data import share, text_batches
from parallel_lab.runtime import rank_device
from parallel_lab.synchronization import (
    Asynchronous,
    DiLoCo,
    Hogwild,
    LocalSGD,
    LocalSteps,
    Mixed,
    OuterSteps,
    Partial,
    Stale,
    Synchronous,
    train,
)
from parallel_lab.tensor_parallel import (
    full_state_dict,
    sum_replicated_gradients,
    tensor_parallel,
    vocab_cross_entropy,
)
from parallel_lab.trace import tag

CONFIG = model.GPTConfig(seq=8, layers=2, heads=12, width=12)  # 12 heads are cut over 1, 2, 3 and 4 ranks
MIXTURE = replace(CONFIG, experts=12, active_experts=2)
BATCHES = list(text_batches(8, 12, 3))
ADAMW = {"lr": 1e-2, "weight_decay": 0.1}


def build(config=CONFIG):
    return model.build(config, dtype=torch.float64).to(rank_device())


def mine(group):
    """This rank's share of each global batch, on its device."""
    for inputs, targets in BATCHES:
        part = share(len(inputs), group.rank(), group.size())
        yield inputs[part].to(rank_device()), targets[part].to(rank_device())


def steps(group, gpt, forward, optimizer, after_backward=lambda mb: None):
    for mb, (inputs, targets) in enumerate(mine(group)):
        optimizer.zero_grad()
        model.loss(forward(inputs), targets).backward()
        after_backward(mb)
        optimizer.step()
    return gpt.state_dict()


def averaged(group):
    gpt = build()
    optimizer = torch.optim.AdamW(gpt.parameters(), **ADAMW)
    return steps(group, gpt, gpt, optimizer, lambda mb: average_gradients(gpt, mb=mb, group=group))


def ddp(group):
    gpt = build()
    optimizer = torch.optim.AdamW(gpt.parameters(), **ADAMW)
    return steps(group, gpt, DDP(gpt, bucket_bytes=4096, group=group), optimizer)


def compressed(make):
    """DDP with a hook that `make` gives."""

    def technique(group):
        gpt = build()
        optimizer = torch.optim.AdamW(gpt.parameters(), **ADAMW)
        return steps(group, gpt, DDP(gpt, bucket_bytes=4096, hook=make(), group=group), optimizer)

    return technique


def zero1(group):
    gpt = build()
    optimizer = Zero1(gpt.parameters(), torch.optim.AdamW, group=group, **ADAMW)
    return steps(group, gpt, DDP(gpt, group=group), optimizer)


def zero2(group):
    gpt = build()
    wrapped = Zero2(gpt, torch.optim.AdamW, group=group, **ADAMW)
    return steps(group, gpt, wrapped, wrapped)


def zero3(group):
    wrapped = Zero3(build(), group=group)
    steps(group, wrapped, wrapped, torch.optim.AdamW(wrapped.module.parameters(), **ADAMW))
    return wrapped.full_state_dict()


def cut(sequence):
    """Tensor parallelism: every rank has a part of every matrix, and reads the whole batch."""

    def run(group):
        gpt = tensor_parallel(build(), sequence=sequence, group=group)
        optimizer = torch.optim.AdamW(gpt.parameters(), **ADAMW)
        for inputs, targets in BATCHES:
            optimizer.zero_grad()
            logits = gpt(inputs.to(rank_device()))
            vocab_cross_entropy(logits, targets.to(rank_device()), vocab=CONFIG.vocab, group=group).backward()
            sum_replicated_gradients(gpt)
            optimizer.step()
        return full_state_dict(gpt, group)

    return run


def mixture(group):
    """Every rank has some of the experts, and its share of each batch."""
    gpt = experts.expert_parallel(build(MIXTURE), group=group)
    assert all(isinstance(each.mix, RemoteExperts) for each in experts.mixtures(gpt))
    optimizer = torch.optim.AdamW(gpt.parameters(), **ADAMW)
    steps(group, gpt, gpt, optimizer, lambda mb: experts.reduce_gradients(gpt, group=group))
    return experts.full_state_dict(gpt, group)


def shared(method):
    """Context parallelism: every rank has a part of each sequence; what two chunks a rank do not divide is left out."""

    def run(group):
        gpt = context_parallel(build(), method=method, group=group)
        seq = CONFIG.seq - CONFIG.seq % (2 * group.size())
        optimizer = torch.optim.AdamW(gpt.parameters(), **ADAMW)
        for mb, (inputs, targets) in enumerate(BATCHES):
            optimizer.zero_grad()
            part, target = (shard_sequence(x[:, :seq].to(rank_device()), group=group) for x in (inputs, targets))
            with tag(mb=mb):
                sequence_loss(gpt(part, positions(seq, group=group)), target, group=group).backward()
            average_gradients(gpt, mb=mb, group=group)
            optimizer.step()
        return gpt.state_dict()

    return run


def strategy(rule, **options):
    def run(group):
        return train(rule, build(), BATCHES, torch.optim.SGD, group=group, lr=0.1, **options).weights

    return run


def stepper(make):
    """A stepper that meets at every step: with plain SGD the mean of the steps is the step of the mean."""

    def run(group):
        gpt = build()
        optimizer = torch.optim.SGD(gpt.parameters(), lr=0.1)
        meeting = make(gpt, optimizer, group)
        for inputs, targets in mine(group):
            optimizer.zero_grad()
            model.loss(gpt(inputs), targets).backward()
            meeting.step(len(inputs))
        return gpt.state_dict()

    return run


ADAM_LIKE = {"average_gradients": averaged, "DDP": ddp, "Zero1": zero1, "Zero2": zero2, "Zero3": zero3}
ADAM_LIKE |= {"tensor_parallel": cut(sequence=False), "sequence parallel": cut(sequence=True)}
ADAM_LIKE |= {"RemoteExperts": mixture}
CONFIGS = {"RemoteExperts": MIXTURE}  # those that are trained on another model
ADAM_LIKE |= {"TopK of all": compressed(lambda: TopK(1.0))}
ADAM_LIKE |= {"ring attention": shared("ring"), "Ulysses": shared("ulysses")}
SGD_LIKE = {
    "Synchronous": strategy(Synchronous()),
    "a parameter server": strategy(Synchronous(), servers=1),
    "LocalSGD": stepper(lambda gpt, optimizer, group: LocalSGD(gpt, optimizer, every=1, group=group)),
    "DiLoCo": stepper(
        lambda gpt, optimizer, group: DiLoCo(gpt, optimizer, every=1, outer_lr=1.0, outer_momentum=0.0, group=group)
    ),
}
OTHERS = {  # what a run ends with depends on who was first, or is no step of one process
    "LocalSteps": strategy(LocalSteps(every=2)),
    "OuterSteps": strategy(OuterSteps(every=2)),
    "Hogwild": strategy(Hogwild()),
    "Asynchronous": strategy(Asynchronous(), servers=1),
    "Stale": strategy(Stale(bound=1), servers=1),
    "Partial": strategy(Partial(k=1), servers=1),
    "Mixed": strategy(Mixed(switch_at=2), servers=1),
}
OTHERS |= {"OneBit": compressed(OneBit), "PowerSGD": compressed(PowerSGD)}
TECHNIQUES = ADAM_LIKE | SGD_LIKE | OTHERS
NEED_TWO = {"a parameter server", "Asynchronous", "Stale", "Partial", "Mixed"}  # a server, and a worker at least
