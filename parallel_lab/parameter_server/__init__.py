"""Parameter servers: some ranks keep the parameters, the others pull them and push gradients."""

from parallel_lab.parameter_server import formulas
from parallel_lab.parameter_server.record import Served, Update
from parallel_lab.parameter_server.rules import Rule, State
from parallel_lab.parameter_server.server import serve
from parallel_lab.parameter_server.shards import shards
from parallel_lab.parameter_server.wire import plan
from parallel_lab.parameter_server.worker import Worker

__all__ = ["Rule", "Served", "State", "Update", "Worker", "formulas", "plan", "serve", "shards"]
