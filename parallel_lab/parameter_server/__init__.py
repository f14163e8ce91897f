"""Parameter servers: some ranks keep the parameters, the others pull them and push gradients."""

from parallel_lab.parameter_server import formulas
from parallel_lab.parameter_server.push_pull import push_pull, push_pull_plan
from parallel_lab.parameter_server.rules import Ledger, Rule, State, Update
from parallel_lab.parameter_server.server import Served, serve
from parallel_lab.parameter_server.shards import shards
from parallel_lab.parameter_server.wire import plan
from parallel_lab.parameter_server.worker import Worker

__all__ = [
    "Ledger",
    "Rule",
    "Served",
    "State",
    "Update",
    "Worker",
    "formulas",
    "plan",
    "push_pull",
    "push_pull_plan",
    "serve",
    "shards",
]
