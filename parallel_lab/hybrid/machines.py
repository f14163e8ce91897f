"""The machines of published runs: what a GPU computes at most, and the links in a node and between nodes."""

from dataclasses import dataclass

from parallel_lab.network import Link


@dataclass(frozen=True)
class Machine:
    """GPUs of one kind, eight of which share a node.

    Attributes:
        peak_flops_per_s: Dense, in the format that the run computed in.
        fast: From GPU to GPU in a node.
        slow: From a GPU to another node.
    """

    peak_flops_per_s: float
    fast: Link
    slow: Link


NVLINK3 = Link(6e-6, 229e9)
"""0.76 of 300 GB/s: fitted to all-reduces over eight A100 (1 MiB in 93 us, 64 MiB in 580 us, 1 GiB in 8.19 ms; vTrain's
repository, trace/a100)."""

MACHINES = {
    "A100": Machine(312e12, NVLINK3, Link(5e-6, 25e9)),  # a card of 200 Gbit/s for each GPU
    "A100 with half the cards": Machine(312e12, NVLINK3, Link(5e-6, 12.5e9)),
    "H100": Machine(989e12, Link(6e-6, 343e9), Link(5e-6, 50e9)),  # 0.76 of NVLink 4; 400 Gbit/s (section 3.3.1)
    "H800": Machine(1979e12, Link(6e-6, 160e9), Link(5e-6, 50e9)),  # peak in 8 bits; DeepSeek-V3, section 3.2.2
}
"""Assumed are the latencies between nodes, and that NVLink 4 reaches the same share of its 450 GB/s as NVLink 3."""
