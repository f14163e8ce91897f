"""Rollouts on some ranks, the trainer on another, and the weights sent between them, with a staleness that is set.

Rank 0 trains; the others sample answers to their share of the prompts and judge them. Step i of the trainer takes the
rollouts of step i. With staleness τ these come from version max(0, i - τ) of the weights, where version i is what i
updates made. With τ = 0 each side waits for the other. With τ of 1 or more the rollout ranks are sampling step i + 1
while the trainer is at step i (Noukhovitch et al. 2024, "Asynchronous RLHF: faster and more efficient off-policy RL for
language models"; Fu et al. 2025, "AReaL", bounds the staleness in the same way and decouples the ratio from it).

    rollout ranks          the weights, a cache of keys and values; no gradients, no optimizer
    trainer                the weights, gradients, moments
    sent per step          trainer: N e bytes to each rollout rank. A rollout rank: its answers, their log-probabilities
                           and rewards, some numbers per token
    measured               the version that each batch came from, and how far the ratio is from 1

What is random is drawn for the global batch, so neither the number of rollout ranks nor the order of messages changes
the result: `train_here` is the same run in one process, and the oracle of the tests.
"""

from collections import deque
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch import Tensor, nn

from parallel_lab.agree.arguments import keyword_only, whole
from parallel_lab.model.data import share
from parallel_lab.model.gpt import GPT
from parallel_lab.plan import Op, Plan
from parallel_lab.runtime.group import member
from parallel_lab.systems.reinforcement.policy import Rollout, advantages, objective, sample
from parallel_lab.systems.reinforcement.task import DTYPE, Sorting
from parallel_lab.systems.serving import Decoder
from parallel_lab.trace import span, tag

HELD_OUT = 256  # prompts that judge the end of a run


@dataclass(frozen=True)
class Settings:
    """What is trained, and how.

    Attributes:
        task: What the answers are judged by.
        steps: Updates of the weights.
        prompts: Prompts per step.
        samples: Answers to each prompt.
        staleness: How many updates older than the trainer's the weights of a rollout are.
        clip: How far from 1 the importance ratio counts; None leaves the ratio out.
        learning_rate: Adam's.
        seed: Of the first weights, the prompts and the samples.
        sent: The dtype in which weights travel; rollouts then sample from rounded weights.
    """

    task: Sorting = field(default_factory=Sorting)
    steps: int = 40
    prompts: int = 8
    samples: int = 8
    staleness: int = 0
    clip: float | None = 0.2
    learning_rate: float = 2e-3
    seed: int = 0
    sent: torch.dtype = DTYPE

    def version(self, step: int) -> int:
        """Which version of the weights samples for `step`."""
        return max(0, step - self.staleness)


@dataclass
class Trained:
    """What a run came to, by step."""

    rewards: list[float] = field(default_factory=list)  # the mean of each step's answers
    staleness: list[int] = field(default_factory=list)  # how many updates old the weights were that sampled them
    drift: list[float] = field(default_factory=list)  # the mean of |log ratio| per token before the update
    held_out: float = 0.0  # the mean reward of answers to other prompts, at the end


def plan(steps: int, workers: int, staleness: int) -> Plan:
    """Who waits for whom: `train` of rank 0 for all rollouts of its step, a rollout for the version that it uses.

    Raises:
        ValueError: steps or workers is below 1, or staleness below 0.
    """
    if min(steps, workers) < 1 or staleness < 0:
        raise ValueError(f"steps={steps}, workers={workers}, staleness={staleness}: expected 1, 1 and 0 at least")
    ranks = range(1, workers + 1)
    needs = {Op(0, "train", step): [Op(rank, "rollout", step) for rank in ranks] for step in range(steps)}
    for step in range(staleness + 1, steps):
        for rank in ranks:
            needs[Op(rank, "rollout", step)] = [Op(0, "train", step - staleness - 1)]
    ops = [Op(rank, "rollout" if rank else "train", step) for rank in range(workers + 1) for step in range(steps)]
    return Plan.of(ops, needs)


def step_s(rollout_s: float, train_s: float, staleness: int) -> float:
    """Seconds per step in the long run, messages left out: the slower side, or both over the steps in flight."""
    return max(rollout_s, train_s, (rollout_s + train_s) / (staleness + 1))


class Worker:
    """A rollout rank: weights that it is given, a cache, and its share of the prompts."""

    def __init__(self, model: GPT, settings: Settings, worker: int, workers: int) -> None:
        self.settings, self.model = settings, model.to(settings.sent)
        mine = share(settings.prompts, worker, workers)
        self.rows = slice(mine.start * settings.samples, mine.stop * settings.samples)
        self.decoder = Decoder(self.model, slots=self.rows.stop - self.rows.start)

    def load(self, flat: Tensor) -> None:
        """Takes a version of the weights."""
        with torch.no_grad():
            nn.utils.vector_to_parameters(flat, self.model.parameters())

    def rollout(self, step: int) -> Rollout:
        """Samples this rank's share of the answers of `step`, and judges them."""
        prompts, noise = _drawn(self.settings, step)
        return sample(self.decoder, self.settings.task, prompts[self.rows], noise[self.rows])


class Trainer:
    """The weights and their optimizer, and what happened so far."""

    def __init__(self, model: GPT, settings: Settings) -> None:
        self.settings, self.model, self.trained = settings, model, Trained()
        self.optimizer = torch.optim.Adam(model.parameters(), lr=settings.learning_rate)

    def step(self, batch: Rollout, version: int) -> None:
        """One update from the answers of a step, which were sampled from `version`."""
        task, done = self.settings.task, self.trained
        new = task.log_probabilities(self.model, batch.sequences)
        old = batch.log_probabilities.to(new.dtype)
        done.rewards.append(batch.rewards.mean().item())
        done.staleness.append(len(done.staleness) - version)
        done.drift.append((new.detach() - old).abs().mean().item())
        self.optimizer.zero_grad()
        objective(new, old, advantages(batch.rewards, self.settings.samples), clip=self.settings.clip).backward()
        self.optimizer.step()

    def weights(self) -> Tensor:
        """This version, as one vector in the dtype in which it travels."""
        return nn.utils.parameters_to_vector(self.model.parameters()).detach().to(self.settings.sent)

    def end(self) -> Trained:
        """What the run came to, with the reward of answers to prompts that were never trained on."""
        task, seed = self.settings.task, 1_000_003
        prompts, noise = task.prompts(HELD_OUT, seed=seed), task.noise(HELD_OUT, seed=seed)
        self.trained.held_out = sample(Decoder(self.model, slots=HELD_OUT), task, prompts, noise).rewards.mean().item()
        return self.trained


def train_here(settings: Settings) -> Trained:
    """The whole run in one process: the same versions, the same samples, nothing sent."""
    whole("staleness", settings.staleness, 0)
    trainer = Trainer(settings.task.policy(seed=settings.seed), settings)
    worker = Worker(settings.task.policy(seed=settings.seed), settings, 0, 1)
    versions = deque([trainer.weights()], maxlen=settings.staleness + 1)
    for step in range(settings.steps):
        worker.load(versions[0])
        trainer.step(worker.rollout(step), settings.version(step))
        versions.append(trainer.weights())
    return trainer.end()


@keyword_only()
def train(settings: Settings, *, group: dist.ProcessGroup | None = None) -> Trained | None:
    """The run on ranks: what it came to on rank 0 of the group, None on the rollout ranks.

    Raises:
        ValueError: there is no rollout rank, or one would have no prompt.
    """
    whole("staleness", settings.staleness, 0)
    group = member(group)
    workers = group.size() - 1
    if workers < 1:
        raise ValueError("a group of 1 rank: expected the trainer and at least one rank for rollouts")
    model = settings.task.policy(seed=settings.seed)
    if group.rank():
        return _work(Worker(model, settings, group.rank() - 1, workers), group)
    return _train(Trainer(model, settings), group)


def _train(trainer: Trainer, group: dist.ProcessGroup) -> Trained:
    """Takes the rollouts of each step, and sends the new version to those who will sample from it."""
    settings, ranks, sent = trainer.settings, range(1, group.size()), []
    for step in range(settings.steps):
        batches = [_received(settings, rank, group, step) for rank in ranks]
        with span("train", part=step):
            versions = {version for _, version in batches}
            whole_batch = Rollout(*map(torch.cat, zip(*(batch for batch, _ in batches), strict=True)))
            trainer.step(whole_batch, min(versions))
        if step + 1 < settings.steps - settings.staleness:
            flat = trainer.weights()
            with tag(part=step + 1, phase="weights"):
                sent += [(flat, dist.isend(flat, group=group, group_dst=rank)) for rank in ranks]
    for _, work in sent:
        work.wait()
    return trainer.end()


def _work(worker: Worker, group: dist.ProcessGroup) -> None:
    """Samples step after step; waits for a version only where the one that it has is too old."""
    settings, sent, version = worker.settings, [], 0  # which version it has: it counts those that have come
    flat = torch.empty(sum(p.numel() for p in worker.model.parameters()), dtype=settings.sent)
    for step in range(settings.steps):
        if settings.version(step) > version:
            version += 1
            with tag(part=version, phase="weights"):
                dist.recv(flat, group=group, group_src=0)
            worker.load(flat)
        with span("rollout", part=step):
            packed = _packed(worker.rollout(step), version)
        with tag(part=step, phase="rollouts"):
            sent.append((packed, dist.isend(packed, group=group, group_dst=0)))
    for _, work in sent:
        work.wait()


def _packed(batch: Rollout, version: int) -> Tensor:
    """(rows, 3 length + 3): sequence, log-probabilities, reward, and the version that it came from."""
    ends = torch.stack([batch.rewards, torch.full_like(batch.rewards, version)], -1)
    return torch.cat([batch.sequences.to(DTYPE), batch.log_probabilities.to(DTYPE), ends], -1)


def _received(settings: Settings, rank: int, group: dist.ProcessGroup, step: int) -> tuple[Rollout, int]:
    """The answers of one rollout rank, and the version that they came from."""
    mine, length = share(settings.prompts, rank - 1, group.size() - 1), settings.task.length
    packed = torch.empty((mine.stop - mine.start) * settings.samples, 3 * length + 3, dtype=DTYPE)
    with tag(part=step, phase="rollouts"):
        dist.recv(packed, group=group, group_src=rank)
    sequences, chosen, ends = packed.split([2 * length + 1, length, 2], -1)
    return Rollout(sequences.long(), chosen, ends[:, 0]), int(ends[0, 1])


def _drawn(settings: Settings, step: int) -> tuple[Tensor, Tensor]:
    """The prompts of a step, each as often as it is answered, and the noise of its samples."""
    seed = 1000 * (settings.seed + 1) + step
    prompts = settings.task.prompts(settings.prompts, seed=77_000_000 + seed).repeat_interleave(settings.samples, 0)
    return prompts, settings.task.noise(len(prompts), seed=seed)


def weight_bytes(settings: Settings, workers: int) -> int:
    """What the trainer sends in all: a version to each rollout rank for each step that does not take the first one."""
    numbers = sum(p.numel() for p in settings.task.policy(seed=0).parameters())
    return max(0, settings.steps - 1 - settings.staleness) * workers * numbers * settings.sent.itemsize


def rollout_bytes(settings: Settings) -> int:
    """What all rollout ranks send per step: three numbers per token of an answer, and three per answer."""
    return settings.prompts * settings.samples * (3 * settings.task.length + 3) * DTYPE.itemsize
