"""A scheme: all that is chosen when a model is laid out over a cluster, and what cannot be chosen, in a sentence.

    scheme = Scheme(pp=8, dp=16, tp=8, zero=1, schedule="1f1b", recompute="selective")
    scheme.world                                        # 1024
    scheme.check(model("llama3-70b"), cluster("h100-ib", gpus=1024), batch=1024)

`hybrid.Layout` has the five axes alone and needs torch; a scheme needs nothing and says the rest as well. The order of
the ranks is the same: tp innermost, then cp, then dp, and pp outermost; experts re-cut the dp x cp data ranks.
"""

from dataclasses import dataclass
from typing import Literal

from parallel_lab.model.budget import Recompute
from parallel_lab.model.config import GPTConfig
from parallel_lab.planner.clusters import Cluster

Schedule = Literal["gpipe", "1f1b", "interleaved", "zb_h1", "zb_h2", "zb_v", "dualpipe_v"]
Precision = Literal["fp32", "fp16", "bf16", "fp8"]
Offload = Literal["none", "optimizer"]
States = Literal["megatron", "deepspeed", "mixed", "fsdp", "float32"]

AXES = ("pp", "dp", "cp", "tp")
SCHEDULES = ("gpipe", "1f1b", "interleaved", "zb_h1", "zb_h2", "zb_v", "dualpipe_v")
CHOICES = {
    "zero": (0, 1, 2, 3),
    "schedule": SCHEDULES,
    "recompute": ("none", "selective", "full"),
    "precision": ("fp32", "fp16", "bf16", "fp8"),
    "offload": ("none", "optimizer"),
    "states": ("megatron", "deepspeed", "mixed", "fsdp", "float32"),
    "attention": ("fused", "unfused"),
}
TWO_CHUNKS = ("zb_v", "dualpipe_v")  # schedules that give each rank two stages, in a V


@dataclass(frozen=True)
class Scheme:
    """How a model is laid out and trained.

    Attributes:
        pp: stages of the pipeline, one rank or more each.
        dp: ranks that read different sequences.
        cp: ranks that share each sequence.
        tp: ranks that share each layer.
        ep: ranks that share the experts, out of the dp x cp; no factor of the world.
        zero: what data ranks shard: 0 nothing, 1 the optimizer, 2 gradients as well, 3 weights as well.
        shard: how many neighboring data ranks shard among them (hybrid sharding); None for all.
        sequence_parallel: whether norms and dropout are shared by the tp ranks as well.
        schedule: of the pipeline.
        chunks: stages of each pipeline rank, with `schedule="interleaved"`.
        microbatch: sequences that pass through the pipeline together.
        recompute: "selective" computes the core of attention again, "full" the whole layer.
        precision: of the products. The optimizer's numbers are float32.
        offload: "optimizer" keeps the master weights and moments in the host's memory.
        states: who keeps how many bytes a parameter. "megatron" has weights in 2 bytes and gradients in 4 (in 2 where
            `precision` is fp16, and a copy in 4); "mixed" is ZeRO's paper, both in 2, and "deepspeed" what became of
            it; "fsdp" shards float32 and gathers copies of 2 bytes; "float32" has four numbers of 4 bytes, as this
            course's own executor.
        attention: "fused" keeps no scores of pairs of tokens (FlashAttention), "unfused" does.

    Raises:
        TypeError: a size is no whole number.
        ValueError: a size is below 1, a word is unknown, or two choices exclude each other.
    """

    pp: int = 1
    dp: int = 1
    cp: int = 1
    tp: int = 1
    ep: int = 1
    zero: int = 0
    shard: int | None = None
    sequence_parallel: bool = True
    schedule: Schedule = "1f1b"
    chunks: int = 1
    microbatch: int = 1
    recompute: Recompute = "none"
    precision: Precision = "bf16"
    offload: Offload = "none"
    states: States = "megatron"
    attention: Literal["fused", "unfused"] = "fused"

    def __post_init__(self) -> None:
        for name in (*AXES, "ep", "chunks", "microbatch"):
            _whole(name, getattr(self, name))
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name}={getattr(self, name)!r}: expected one of {', '.join(map(str, known))}")
        if self.data % self.ep:
            raise ValueError(f"ep={self.ep} does not divide the dp x cp = {self.data} data ranks")
        if self.shard is not None and (_whole("shard", self.shard) or self.data % self.shard):
            raise ValueError(f"shard={self.shard} does not divide the dp x cp = {self.data} data ranks")
        if self.chunks > 1 and self.schedule != "interleaved":
            raise ValueError(f"chunks={self.chunks} and schedule={self.schedule!r}: only interleaved takes chunks")
        if self.schedule == "interleaved" and self.chunks == 1 and self.pp > 1:
            raise ValueError("schedule='interleaved' and chunks=1: that is 1f1b; interleaved needs 2 chunks or more")

    @property
    def world(self) -> int:
        """Ranks: pp x dp x cp x tp."""
        return self.pp * self.data * self.tp

    @property
    def data(self) -> int:
        """Ranks of a stage that read different tokens: dp x cp."""
        return self.dp * self.cp

    @property
    def sharded(self) -> int:
        """Among how many data ranks ZeRO shards: `shard`, or all of them."""
        return self.shard or self.data

    @property
    def stages_each(self) -> int:
        """Stages of each pipeline rank."""
        return 2 if self.schedule in TWO_CHUNKS else self.chunks

    def microbatches(self, batch: int) -> int:
        """How many a data rank passes through its pipeline in a step of `batch` sequences."""
        return batch // (self.dp * self.microbatch)

    def check(self, shape: GPTConfig, cluster: Cluster | None, batch: int) -> None:
        """Refuses what cannot be trained so, in a sentence.

        Args:
            shape: of the model.
            cluster: to run on; None where it does not matter.
            batch: sequences of a step, over all ranks.

        Raises:
            ValueError: see above.
        """
        if cluster is not None:
            self._check_cluster(cluster)
        self._check_model(shape)
        if shape.seq % (2 * self.cp) and self.cp > 1:
            raise ValueError(f"a sequence of {shape.seq} tokens does not divide into 2 cp = {2 * self.cp} parts")
        if batch % (self.dp * self.microbatch):
            raise ValueError(
                f"a batch of {batch} sequences does not divide into dp={self.dp} times microbatches of"
                f" {self.microbatch}"
            )
        self._check_schedule(self.microbatches(batch))

    def fits_in(self, shape: GPTConfig, cluster: Cluster | None, batch: int) -> bool:
        """Whether `check` lets it pass: of memory this says nothing."""
        try:
            self.check(shape, cluster, batch)
        except ValueError:
            return False
        return True

    def _check_cluster(self, cluster: Cluster) -> None:
        if self.world != cluster.gpus:
            product = " x ".join(f"{axis}={getattr(self, axis)}" for axis in AXES)
            raise ValueError(f"{product} makes {self.world} ranks, and {cluster.name} has {cluster.gpus}")
        cluster.accelerator.peak_flops_per_s(self.precision)  # raises where it has no such unit

    def _check_model(self, shape: GPTConfig) -> None:
        stages, kv_heads = self.pp * self.stages_each, shape.kv_heads or shape.heads
        if stages > shape.layers + 2:
            raise ValueError(f"{shape.layers} layers and two tables do not fill {stages} stages: lower pp or chunks")
        for name, count in (("heads", shape.heads), ("hidden columns", shape.hidden_width)):
            if count % self.tp:
                raise ValueError(f"{count} {name} do not divide by tp={self.tp}")
        if kv_heads % self.tp and self.tp % kv_heads:
            raise ValueError(f"{kv_heads} key-value heads neither divide by tp={self.tp} nor tp by them")
        if shape.experts % self.ep:
            some = f"{shape.experts} experts" if shape.experts > 1 else "a model without experts"
            raise ValueError(f"{some}, and ep={self.ep}: choose a divisor of {shape.experts}")

    def _check_schedule(self, microbatches: int) -> None:
        if self.schedule == "interleaved" and self.pp > 1 and microbatches % self.pp:
            raise ValueError(f"interleaved takes microbatches in groups of pp={self.pp}, and there are {microbatches}")


def _whole(name: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name}={value!r}: expected a whole number")
    if value < 1:
        raise ValueError(f"{name}={value}: expected at least 1")
    return 0
