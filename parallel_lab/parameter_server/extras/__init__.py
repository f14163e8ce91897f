"""What outlives a server: snapshots of its shard, and spare ranks that take its place."""

from parallel_lab.parameter_server.extras.snapshots import Snapshots
from parallel_lab.parameter_server.extras.spares import Spared, SparedWorker, serve

__all__ = ["Snapshots", "Spared", "SparedWorker", "serve"]
