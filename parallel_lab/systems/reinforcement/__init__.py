"""Reinforcement learning of a language model in parallel: rollouts, a trainer, and the weights between them."""

from parallel_lab.systems.reinforcement import compare
from parallel_lab.systems.reinforcement.policy import Rollout, advantages, objective, sample
from parallel_lab.systems.reinforcement.task import Sorting
from parallel_lab.systems.reinforcement.train import (
    Settings,
    Trained,
    plan,
    rollout_bytes,
    step_s,
    train,
    train_here,
    weight_bytes,
)

__all__ = [
    "Rollout",
    "Settings",
    "Sorting",
    "Trained",
    "advantages",
    "compare",
    "objective",
    "plan",
    "rollout_bytes",
    "sample",
    "step_s",
    "train",
    "train_here",
    "weight_bytes",
]
