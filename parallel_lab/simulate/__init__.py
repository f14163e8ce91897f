"""A plan and a cost model in, a trace out: what would happen on a machine of any size. No torch."""

from parallel_lab.simulate.cost import AlphaBeta, Cost, PassCost, Roofline, Topology, Wire
from parallel_lab.simulate.engine import StuckPlan, simulate

__all__ = ["AlphaBeta", "Cost", "PassCost", "Roofline", "StuckPlan", "Topology", "Wire", "simulate"]
