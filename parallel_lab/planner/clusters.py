"""Clusters: accelerators, the links between them, what they draw and cost, from a table of real ones with sources.

    cluster("h100-ib", gpus=1024)            # the table's, in another size
    faster(cluster("a100-selene", gpus=512), network=2)

A link has the bandwidth that data sheets give, in one direction and for one accelerator; what of it a collective
reaches is a constant that `calibrate` fits. So are latencies, which no data sheet gives: here stand 5 and 10
microseconds, as an order of size. Prices are list prices, or what a report assumed: give your own.
"""

from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from parallel_lab.network import Link

_GB = 1e9


@dataclass(frozen=True)
class Accelerator:
    """A GPU, or another chip.

    Attributes:
        name: as it is sold.
        peaks: (precision, FLOP/s) of dense products, by data sheet.
        memory_bytes: that it has.
        bytes_per_s: bandwidth of that memory.
        watts: that it draws at most (TDP).
        year: in which it came to market.
        source: of these numbers.
    """

    name: str
    peaks: tuple[tuple[str, float], ...]
    memory_bytes: float
    bytes_per_s: float
    watts: float
    year: int
    source: str

    def peak_flops_per_s(self, precision: str = "bf16") -> float:
        """Peak of dense products in `precision`: fp32, fp16, bf16 or fp8.

        Raises:
            ValueError: it has no unit for that.
        """
        found = dict(self.peaks).get(precision)
        if found is None:
            raise ValueError(f"{self.name} has no {precision} products; it has {', '.join(dict(self.peaks))}")
        return found


@dataclass(frozen=True)
class Cluster:
    """Accelerators in nodes.

    Attributes:
        name: in the table.
        accelerator: all are alike.
        gpus: how many there are.
        gpus_per_node: how many share the fast links.
        fast: from one to another in its node.
        slow: from one to another node, for each of them: the node's cards over `gpus_per_node`.
        usd_per_gpu_hour: price of an accelerator with its share of everything else.
        pue: power of the building over that of its computers.
        kg_per_kwh: carbon of the electricity, CO2 equivalent.
        source: of links and prices.
    """

    name: str
    accelerator: Accelerator
    gpus: int
    gpus_per_node: int
    fast: Link
    slow: Link
    usd_per_gpu_hour: float
    pue: float = 1.1
    kg_per_kwh: float = 0.385
    source: str = ""

    def __post_init__(self) -> None:
        if self.gpus < 1 or self.gpus_per_node < 1:
            raise ValueError(f"{self.name}: gpus={self.gpus}, gpus_per_node={self.gpus_per_node}: expected 1 or more")

    @property
    def nodes(self) -> int:
        """How many nodes that takes; the last may be filled in part."""
        return -(-self.gpus // self.gpus_per_node)

    @property
    def memory_bytes(self) -> float:
        """Of one accelerator."""
        return self.accelerator.memory_bytes


def cluster(name: str, gpus: int | None = None) -> Cluster:
    """A cluster of the table, with as many `gpus` as one wants.

    Raises:
        ValueError: there is none of that name; the message has near ones.
    """
    known = _table()["clusters"]
    if name not in known:
        near = get_close_matches(name, known, 3, 0.4)
        raise ValueError(f"no cluster {name!r}: {'did you mean ' + ' or '.join(near) if near else ', '.join(known)}")
    row = dict(known[name])
    links = {
        kind: Link(row.pop(f"{kind}_latency_us", latency) / 1e6, row.pop(f"{kind}_gb_per_s") * _GB)
        for kind, latency in (("fast", 5), ("slow", 10))
    }
    chip, usual = accelerator(row.pop("accelerator")), row.pop("gpus")
    return Cluster(name=name, accelerator=chip, gpus=gpus or usual, **links, **row)


def clusters() -> list[str]:
    """The names in the table."""
    return list(_table()["clusters"])


def accelerator(name: str) -> Accelerator:
    """An accelerator of the table.

    Raises:
        ValueError: there is none of that name.
    """
    known = _table()["accelerators"]
    if name not in known:
        raise ValueError(f"no accelerator {name!r}: there are {', '.join(known)}")
    row = known[name]
    peaks = tuple((precision, tflops * 1e12) for precision, tflops in row["tflops"].items())
    return Accelerator(
        name, peaks, row["memory_gib"] * 2**30, row["tb_per_s"] * 1e12, row["watts"], row["year"], row["source"]
    )


def accelerators() -> list[str]:
    """The names in the table."""
    return list(_table()["accelerators"])


def faster(
    of: Cluster, *, network: float = 1.0, inside: float = 1.0, memory: float = 1.0, flops: float = 1.0
) -> Cluster:
    """The same cluster with some of it so many times as fast, or as large; `network` is between nodes.

    A latency stays what it is.
    """
    chip = of.accelerator
    peaks = tuple((precision, flops * peak) for precision, peak in chip.peaks)
    return replace(
        of,
        accelerator=replace(chip, peaks=peaks, memory_bytes=memory * chip.memory_bytes),
        fast=replace(of.fast, bytes_per_s=inside * of.fast.bytes_per_s),
        slow=replace(of.slow, bytes_per_s=network * of.slow.bytes_per_s),
    )


@cache
def _table() -> dict[str, Any]:
    with files("parallel_lab.planner").joinpath("clusters.yaml").open(encoding="utf-8") as lines:
        return yaml.safe_load(lines)
