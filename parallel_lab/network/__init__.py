"""What communication costs: a link, a message over it, a collective, and networks of one or two kinds of link.

Standard library only, and below the simulator: the simulator, the emulated link and the formulas of the techniques
all ask here, so that a collective has one price in the whole course.
"""

from parallel_lab.network.bandwidth import bus_bandwidth, bus_factor, seconds_at
from parallel_lab.network.collective import COLLECTIVES, Price, exchange_cost, price, ring_cost
from parallel_lab.network.cost import AlphaBeta, CostModel, Topology
from parallel_lab.network.link import Link, Nodes

__all__ = [
    "COLLECTIVES",
    "AlphaBeta",
    "CostModel",
    "Link",
    "Nodes",
    "Price",
    "Topology",
    "bus_bandwidth",
    "bus_factor",
    "exchange_cost",
    "price",
    "ring_cost",
    "seconds_at",
]
