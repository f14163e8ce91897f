"""Parameter servers: some ranks keep the parameters, the others pull them and push gradients."""

from parallel_lab.parameter_server import formulas
from parallel_lab.parameter_server.record import Push, Served
from parallel_lab.parameter_server.rules import Rule, State
from parallel_lab.parameter_server.server import serve
from parallel_lab.parameter_server.shards import shards
from parallel_lab.parameter_server.train import Trained, train, work
from parallel_lab.parameter_server.wire import plan
from parallel_lab.parameter_server.worker import Worker

__all__ = [
    "Push",
    "Rule",
    "Served",
    "State",
    "Trained",
    "Worker",
    "formulas",
    "plan",
    "serve",
    "shards",
    "train",
    "work",
]
