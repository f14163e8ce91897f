"""A plan and a cost model in, a trace out: what would happen on a machine of any size. No torch."""

from parallel_lab.network import AlphaBeta, CostModel, Topology
from parallel_lab.simulate.engine import simulate
from parallel_lab.simulate.passes import PassCost
from parallel_lab.simulate.roofline import Decoding, Roofline

__all__ = ["AlphaBeta", "CostModel", "Decoding", "PassCost", "Roofline", "Topology", "simulate"]
