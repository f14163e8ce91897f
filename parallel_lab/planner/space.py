"""Which schemes a search looks at: all axes, and for each of the other choices the values that are listed.

The schemes of a space fall into families: those of one family have the same axes, microbatch, recomputation and
precision, and so the same products to compute. What differs inside it is who holds what (ZeRO, hybrid sharding,
offload) and in which order stages work (schedule, chunks). `search` bounds a family once, and not each of its schemes.

Left out are choices that another one equals or beats in every respect that the planner counts: GPipe keeps more than
1F1B and takes as long; without sequence parallelism the same is computed and sent, and more is kept. A `Space` that
names them looks at them.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from math import isqrt
from typing import Any

from parallel_lab.model.budget import Shape
from parallel_lab.planner.clusters import Cluster
from parallel_lab.planner.flags import runs_on
from parallel_lab.planner.scheme import Scheme


@dataclass(frozen=True)
class Space:
    """What may be chosen. An axis that is None may have any size; the others have the listed values.

    Attributes:
        pp: stages; so `tp`, `cp` and `ep`. The data ranks are what these leave of the accelerators.
        microbatch: sequences of a microbatch.
        recompute: what is computed again.
        precision: of the products.
        zero: stages of ZeRO.
        node_shards: whether ZeRO-3 may shard inside nodes only, with copies across them (hybrid sharding).
        schedules: of the pipeline.
        chunks: of interleaved schedules.
        offload: what the host keeps.
        sequence_parallel: whether tensor ranks share what they would all keep.
        states: who keeps how many bytes a parameter, see `Scheme`.
        framework: only what it can run, a key of `flags.FRAMEWORKS`; None for all.
    """

    pp: tuple[int, ...] | None = None
    tp: tuple[int, ...] | None = None
    cp: tuple[int, ...] | None = None
    ep: tuple[int, ...] | None = None
    microbatch: tuple[int, ...] = (1, 2, 4, 8)
    recompute: tuple[str, ...] = ("none", "selective", "full")
    precision: tuple[str, ...] = ("bf16",)
    zero: tuple[int, ...] = (0, 1, 2, 3)
    node_shards: bool = True
    schedules: tuple[str, ...] = ("1f1b", "interleaved", "zb_h1", "zb_v")
    chunks: tuple[int, ...] = (2, 4)
    offload: tuple[str, ...] = ("none",)
    sequence_parallel: tuple[bool, ...] = (True,)
    states: str = "megatron"
    framework: str | None = None

    def families(self, shape: Shape, cluster: Cluster, batch: int) -> Iterator[Scheme]:
        """One scheme for each family that can train the model at all: its member without pipeline tricks and ZeRO."""
        for axes in self._axes(shape, cluster.gpus):
            for microbatch, recompute, precision in product(self.microbatch, self.recompute, self.precision):
                chosen = {"recompute": recompute, "precision": precision, "states": self.states}
                made = _made(None, **axes, microbatch=microbatch, **chosen)
                if made and made.fits_in(shape, cluster, batch):
                    yield made

    def groups(
        self, family: Scheme, shape: Shape, cluster: Cluster, batch: int
    ) -> Iterator[tuple[Scheme, list[Scheme]]]:
        """The schemes of a family by schedule; ahead of each group its leanest, but for what ZeRO-3 gathers.

        The leanest has all the ZeRO there is, over all data ranks, and need not be one of the group.
        """
        offload = "optimizer" if "optimizer" in self.offload else "none"
        for schedule, chunks in self._schedules(family):
            found = list(self._members(family, schedule, chunks, shape, cluster, batch))
            if found:
                zero = max(one.zero for one in found)
                yield replace(found[0], zero=zero, shard=None, offload=offload, sequence_parallel=True), found

    def members(self, family: Scheme, shape: Shape, cluster: Cluster, batch: int) -> Iterator[Scheme]:
        """The schemes of a family."""
        for _, group in self.groups(family, shape, cluster, batch):
            yield from group

    def _members(
        self, family: Scheme, schedule: str, chunks: int, shape: Shape, cluster: Cluster, batch: int
    ) -> Iterator[Scheme]:
        plain = _made(family, schedule=schedule, chunks=chunks)
        if plain is None or not plain.fits_in(shape, cluster, batch):
            return
        tensor = self.sequence_parallel if family.tp > 1 else self.sequence_parallel[:1]
        for zero, shard in self._shards(family, cluster):
            for offload, shared in product(self.offload, tensor):
                made = replace(plain, zero=zero, shard=shard, offload=offload, sequence_parallel=shared)
                if self.framework is None or runs_on(self.framework, made):
                    yield made

    def _axes(self, shape: Shape, gpus: int) -> Iterator[dict[str, int]]:
        for pp, tp in product(_sizes(self.pp, gpus), _sizes(self.tp, gpus)):
            if pp > shape.layers or shape.heads % tp or gpus % (pp * tp):
                continue
            for cp in _sizes(self.cp, gpus // (pp * tp)):
                data = gpus // (pp * tp)
                for ep in _sizes(self.ep, data) if shape.experts > 1 else (1,):
                    if shape.experts % ep == 0:
                        yield {"pp": pp, "dp": data // cp, "cp": cp, "tp": tp, "ep": ep}

    def _schedules(self, family: Scheme) -> Iterator[tuple[str, int]]:
        if family.pp == 1:
            yield "1f1b", 1
            return
        for schedule in self.schedules:
            for chunks in self.chunks if schedule == "interleaved" else (1,):
                yield schedule, chunks

    def _shards(self, family: Scheme, cluster: Cluster) -> Iterator[tuple[int, int | None]]:
        if family.data == 1:  # nobody to share with
            yield min(self.zero), None
            return
        inside = cluster.gpus_per_node // family.tp
        for zero in self.zero:
            yield zero, None
            if zero == 3 and self.node_shards and 1 < inside < family.data and family.data % inside == 0:
                yield zero, inside


def divisors(count: int) -> tuple[int, ...]:
    """The divisors of `count`, ascending."""
    small = [size for size in range(1, isqrt(count) + 1) if count % size == 0]
    return tuple(sorted({*small, *(count // size for size in small)}))


def _sizes(chosen: tuple[int, ...] | None, count: int) -> tuple[int, ...]:
    return divisors(count) if chosen is None else tuple(size for size in chosen if count % size == 0)


def _made(of: Scheme | None, **choices: Any) -> Scheme | None:
    """The scheme of these choices; None where they exclude each other."""
    try:
        return replace(of, **choices) if of else Scheme(**choices)
    except ValueError:
        return None
