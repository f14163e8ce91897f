"""Parameter servers: some ranks keep the parameters, the others pull them and push gradients."""

from parallel_lab.parameter_server import formulas
from parallel_lab.parameter_server.consistency import (
    Asynchronous,
    Mixed,
    Partial,
    Rule,
    StaleSynchronous,
    Synchronous,
)
from parallel_lab.parameter_server.record import Push, Record
from parallel_lab.parameter_server.schedule import plan
from parallel_lab.parameter_server.server import serve
from parallel_lab.parameter_server.sharding import Layout, shards
from parallel_lab.parameter_server.state import State
from parallel_lab.parameter_server.train import train
from parallel_lab.parameter_server.worker import Worker

__all__ = [
    "Asynchronous",
    "Layout",
    "Mixed",
    "Partial",
    "Push",
    "Record",
    "Rule",
    "StaleSynchronous",
    "State",
    "Synchronous",
    "Worker",
    "formulas",
    "plan",
    "serve",
    "shards",
    "train",
]
