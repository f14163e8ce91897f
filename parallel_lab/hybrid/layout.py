"""A layout: how many ranks each axis has, which ranks form the groups of an axis, and what a layout cannot do.

Narayanan et al. 2021, "Efficient Large-Scale Language Model Training on GPU Clusters Using Megatron-LM", section 3,
puts the axis that talks most on the fastest links. Ranks that differ only in the last axis are neighbors, so the
order is

    pp      pipeline stages: a message a microbatch, between two ranks; outermost
    dp      data: gradients, once a step
    cp      context: keys and values, once a layer
    tp      tensor: activations, four times a layer; innermost

The world is their product. Experts (`ep`) are no factor of it: the dp x cp *data ranks* of a stage, which all read
different tokens, are cut once more into runs of `ep` neighbors that share the experts. So each expert stands on
edp = dp cp / ep ranks, and everything else on all dp x cp.
"""

from dataclasses import dataclass
from math import prod
from weakref import WeakKeyDictionary

import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh

from parallel_lab.agree.arguments import whole
from parallel_lab.model.config import GPTConfig
from parallel_lab.runtime import make_mesh
from parallel_lab.runtime.group import member

AXES = ("pp", "dp", "cp", "tp")  # outermost first
NAMES = (*AXES, "ep", "edp", "dp_cp")  # of all groups that a rank is in

_made: WeakKeyDictionary[dist.ProcessGroup, dict["Layout", dict[str, dist.ProcessGroup]]] = WeakKeyDictionary()


@dataclass(frozen=True)
class Layout:
    """How many ranks each axis has: `Layout(pp=2, dp=2, tp=2)` is for 8 ranks.

    Raises:
        TypeError: a size is no whole number.
        ValueError: a size is below 1, or `ep` does not divide the dp x cp data ranks.
    """

    pp: int = 1
    dp: int = 1
    cp: int = 1
    tp: int = 1
    ep: int = 1

    def __post_init__(self) -> None:
        for name in (*AXES, "ep"):
            whole(name, getattr(self, name))
        if self.data % self.ep:
            raise ValueError(
                f"ep={self.ep} does not divide the dp={self.dp} x cp={self.cp} = {self.data} data ranks, out of which"
                f" the ranks that share experts are taken. Choose a divisor of {self.data}"
            )

    @property
    def world(self) -> int:
        """How many ranks it takes; ep is no factor."""
        return self.pp * self.data * self.tp

    @property
    def data(self) -> int:
        """How many ranks of a stage read different tokens: dp x cp."""
        return self.dp * self.cp

    @property
    def edp(self) -> int:
        """How many ranks hold the same expert."""
        return self.data // self.ep

    def rows(self, axis: str) -> list[list[int]]:
        """The groups of an axis of `NAMES`, each a list of ranks; every rank is in one of them."""
        size, stride = self._steps(axis)
        firsts = [rank for rank in range(self.world) if rank // stride % size == 0]
        return [[first + k * stride for k in range(size)] for first in firsts]

    def place(self, rank: int) -> dict[str, int]:
        """Where `rank` stands along each axis of `NAMES`."""
        steps = {axis: self._steps(axis) for axis in NAMES}
        return {axis: rank // stride % size for axis, (size, stride) in steps.items()}

    def _steps(self, axis: str) -> tuple[int, int]:
        """The size of an axis, and how far apart its ranks are."""
        views = {"ep": ("pp", "edp", "ep", "tp"), "edp": ("pp", "edp", "ep", "tp"), "dp_cp": ("pp", "data", "tp")}
        view = views.get(axis, AXES)
        place = view.index("data" if axis == "dp_cp" else axis)
        sizes = [getattr(self, name) for name in view]
        return sizes[place], prod(sizes[place + 1 :])

    def mesh(self) -> DeviceMesh:
        """The mesh of the four axes; all ranks call it.

        Raises:
            ValueError: there are not as many ranks as the layout has.
        """
        self.require_world(dist.get_world_size())
        return make_mesh(**{axis: getattr(self, axis) for axis in AXES})

    def groups(self, mesh: DeviceMesh) -> dict[str, dist.ProcessGroup]:
        """This rank's group of each axis of `NAMES`; all ranks call it. Axes of the same ranks share a group."""
        made = _made.setdefault(member(None), {})
        if self not in made:
            known = {axis: mesh.get_group(axis) for axis in AXES}
            for axis in NAMES[len(AXES) :]:
                same = [other for other in known if self.rows(other) == self.rows(axis)]
                known[axis] = known[same[0]] if same else group_of(self.rows(axis), axis)
            made[self] = known
        return dict(made[self])

    def require_world(self, world: int) -> None:
        """Refuses another number of ranks than the layout has.

        Raises:
            ValueError: that is so.
        """
        if self.world != world:
            product = " x ".join(f"{axis}={getattr(self, axis)}" for axis in AXES)
            ep = f" (ep={self.ep} is no factor: it re-cuts the {self.data} data ranks)" if self.ep > 1 else ""
            raise ValueError(f"{product} makes {self.world} ranks, and there are {world}{ep}. Change an axis")

    def check(
        self,
        config: GPTConfig,
        world: int,
        *,
        seq: int | None = None,
        batch: int | None = None,
        microbatches: int = 1,
        stages: int | None = None,
        context: str = "ring",
    ) -> None:
        """Refuses what this layout cannot train, in a sentence, before anything is cut.

        Args:
            config: of the model.
            world: how many ranks there are.
            seq: the tokens of a sequence, where known.
            batch: the sequences of a global batch, where known.
            microbatches: how many a step has.
            stages: of the pipeline; pp by default.
            context: `ring` or `ulysses`.

        Raises:
            ValueError: see above.
        """
        self.require_world(world)
        layers, stages = config.layers + 2, stages or self.pp
        if stages > layers:
            raise ValueError(
                f"{config.layers} blocks, an embedding and a head make at most {layers} stages, and pp={self.pp} needs"
                f" {stages}"
            )
        self._check_tensors(config.heads, config.kv_heads or config.heads, config.hidden_width)
        self._check_experts(config.experts)
        self._check_context(config, seq, context)
        if batch is not None and batch < self.dp * microbatches:
            raise ValueError(
                f"a batch of {batch} sequences, and dp={self.dp} times {microbatches} microbatches need one each:"
                f" at least {self.dp * microbatches}"
            )

    def _check_tensors(self, heads: int, kv_heads: int, hidden: int) -> None:
        if heads % self.tp:
            raise ValueError(f"{heads} heads do not divide by tp={self.tp}. Choose a divisor of {heads}")
        if hidden % self.tp:
            raise ValueError(f"{hidden} hidden columns do not divide by tp={self.tp}. Choose a divisor of {hidden}")
        if kv_heads % self.tp and self.tp % kv_heads:
            raise ValueError(f"{kv_heads} key-value heads neither divide by tp={self.tp} nor tp by them")

    def _check_experts(self, experts: int) -> None:
        if self.ep > 1 and experts % self.ep:
            if experts == 1:
                raise ValueError(f"ep={self.ep}, and this model has no experts: ep=1")
            raise ValueError(f"{experts} experts do not divide by ep={self.ep}. Choose a divisor of {experts}")

    def _check_context(self, config: GPTConfig, seq: int | None, context: str) -> None:
        if context not in ("ring", "ulysses"):
            raise ValueError(f"context={context!r}: expected ring or ulysses")
        if self.cp == 1:
            return
        parts = 2 * self.cp  # each rank has an early part and a late one
        if seq is not None and seq % parts:
            raise ValueError(f"a sequence of {seq} tokens does not divide into 2 cp = {parts} parts. Pad it")
        heads, kv_heads = config.heads // self.tp, max(1, (config.kv_heads or config.heads) // self.tp)
        if context == "ulysses" and (heads % self.cp or (kv_heads % self.cp and self.cp % kv_heads)):
            raise ValueError(
                f"ulysses gives each of cp={self.cp} ranks whole heads, and a tp rank has {heads} and {kv_heads}"
                " key-value heads: these do not divide. Choose context='ring', which cuts no heads"
            )


def group_of(rows: list[list[int]], axis: str) -> dist.ProcessGroup:
    """The group of this rank; all ranks make all groups of the axis, in one order."""
    groups = [dist.new_group(row, group_desc=f"mesh_{axis}") for row in rows]
    return next(group for group, row in zip(groups, rows, strict=True) if dist.get_rank() in row)  # type: ignore[return-value]
