"""What to change where no scheme fits: another machine, batch or choice with which some scheme does.

Looked at are lean schemes alone, one or a few of each layout: as much ZeRO and recomputation as the space has, and the
smallest microbatch. That one of them fits is enough to say so. Whether a smaller change would do as well is not said.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

from parallel_lab.model.budget import Shape
from parallel_lab.planner.clusters import Cluster
from parallel_lab.planner.scheme import Scheme
from parallel_lab.planner.space import Space

Fits = Callable[[Shape, Cluster, Scheme, int], bool]
MOST = 64


def lean(space: Space) -> Space:
    """The schemes of `space` that need little memory, one or a few of each layout."""
    strongest = [kind for kind in ("full", "selective", "none") if kind in space.recompute]
    return replace(
        space,
        microbatch=(min(space.microbatch),),
        recompute=tuple(strongest[:1]),
        zero=(max(space.zero),),
        node_shards=False,
        schedules=("1f1b",) if "1f1b" in space.schedules else space.schedules[:1],
        offload=("optimizer",) if "optimizer" in space.offload else space.offload[:1],
    )


def some_fit(shape: Shape, cluster: Cluster, batch: int, space: Space, fits: Fits) -> bool:
    """Whether a lean scheme fits."""
    few = lean(space)
    return any(
        fits(shape, cluster, scheme, batch)
        for family in few.families(shape, cluster, batch)
        for scheme in few.members(family, shape, cluster, batch)
    )


def remedies(shape: Shape, cluster: Cluster, batch: int, space: Space, fits: Fits) -> Iterator[str]:
    """Changes with which a scheme fits, each alone, in the words of `plab plan`'s options."""
    if "optimizer" not in space.offload:
        moved = replace(space, offload=("optimizer",))
        if some_fit(shape, cluster, batch, moved, fits):
            yield "keep the optimizer in host memory (--offload)"
    for times in _doubled(MOST):
        larger = replace(cluster, gpus=times * cluster.gpus)
        if some_fit(shape, larger, times * batch, space, fits):
            yield f"take {larger.gpus:,} accelerators (--gpus {larger.gpus} --batch {times * batch})"
            break
    for times in _doubled(shape.seq):
        shorter = replace(shape, seq=shape.seq // times)
        if some_fit(shorter, cluster, batch, space, fits):
            yield f"train on sequences of {shorter.seq:,} tokens (--seq {shorter.seq})"
            break
    chip = cluster.accelerator
    for times in _doubled(MOST):
        roomier = replace(cluster, accelerator=replace(chip, memory_bytes=times * chip.memory_bytes))
        if some_fit(shape, roomier, batch, space, fits):
            yield f"take accelerators with {times} times the memory (--cluster)"
            break


def _doubled(most: int) -> Iterator[int]:
    times = 2
    while times <= most:
        yield times
        times *= 2
