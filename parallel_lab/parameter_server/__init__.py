"""Parameter servers: some ranks keep the parameters, the others pull them and push gradients."""

from parallel_lab.parameter_server import formulas
from parallel_lab.parameter_server.record import Push, Record
from parallel_lab.parameter_server.rules import Rule, State
from parallel_lab.parameter_server.schedule import plan
from parallel_lab.parameter_server.server import serve
from parallel_lab.parameter_server.sharding import Layout, shards
from parallel_lab.parameter_server.train import train
from parallel_lab.parameter_server.worker import Worker

__all__ = [
    "Layout",
    "Push",
    "Record",
    "Rule",
    "State",
    "Worker",
    "formulas",
    "plan",
    "serve",
    "shards",
    "train",
]
