"""What to type for a scheme: the options of torchtitan, Megatron-LM, DeepSpeed and this course's `hybrid.train`.

Each framework has its own words for the same cuts, and some cuts it does not have. What it has becomes options; what
it lacks becomes a note, so that nothing is dropped silently. The options state the layout, the batch, the precision
and, where the framework takes it, the model's shape. Data, tokenizer, learning rate and checkpoints are yours.

The names stand in `torchtitan/config/job_config.py` (2025), `megatron/training/arguments.py` (2025), the page
"DeepSpeed Configuration JSON" (2025) and `parallel_lab/hybrid/options.py`. They change: newer torchtitan counts tokens
where this one counts sequences. The tests parse the last by its own parser, and look up torchtitan's schedules in
torch, which has them.
"""

import json
from dataclasses import dataclass
from math import gcd

from parallel_lab.model.budget import Shape
from parallel_lab.planner.scheme import Scheme

TORCH_SCHEDULES = {
    "gpipe": "GPipe",
    "1f1b": "1F1B",
    "interleaved": "Interleaved1F1B",
    "zb_v": "ZBVZeroBubble",
    "dualpipe_v": "DualPipeV",
}
"""By torchtitan's option; the names are those of torch.distributed.pipelining."""
FRAMEWORKS = {"torchtitan": "fsdp", "megatron": "megatron", "deepspeed": "deepspeed", "hybrid": "float32"}
"""For `runs_on`, with the `states` of a scheme that the framework keeps."""


@dataclass(frozen=True)
class Flags:
    """What one framework is given.

    Attributes:
        framework: its name.
        text: what to paste; a command's options, or a JSON file.
        notes: what the framework has no option for, a sentence each.
    """

    framework: str
    text: str
    notes: tuple[str, ...]

    def __str__(self) -> str:
        notes = "".join(f"\n  note: {note}" for note in self.notes)
        return f"{self.framework}\n{self.text}{notes}"


def runs_on(framework: str, scheme: Scheme) -> bool:
    """Whether a framework (a key of `FRAMEWORKS`) has what the scheme asks for.

    torchtitan shards with FSDP2: it has no ZeRO-1, and shards over all context ranks; Megatron-LM's own schedules
    are two, and ZeRO-1 is what goes with them; DeepSpeed's pipeline goes with ZeRO 0 and 1, its tensor ranks with 0 to
    2; this course's training command has no ZeRO-2, no hybrid sharding, and one size of chunks.
    """
    pipeline, sharded = scheme.pp > 1, scheme.shard is not None and scheme.zero > 0
    if framework == "torchtitan":
        known = not pipeline or scheme.schedule in TORCH_SCHEDULES
        return known and scheme.zero != 1 and not (sharded and scheme.sharded % scheme.cp)
    if framework == "megatron":
        known = not pipeline or scheme.schedule in ("1f1b", "interleaved")
        return known and (scheme.zero < 2 or not pipeline)
    if framework == "deepspeed":
        plain = scheme.cp == 1 and (not sharded or scheme.zero == 3)
        return plain and scheme.zero <= (1 if pipeline else 2 if scheme.tp > 1 else 3) and scheme.schedule == "1f1b"
    chunked = scheme.schedule == "interleaved" and scheme.chunks != 2
    return scheme.zero != 2 and not sharded and not chunked and scheme.recompute != "selective"


def all_flags(shape: Shape, scheme: Scheme, batch: int, *, per_node: int = 8) -> list[Flags]:
    """The options for each of the four frameworks; `batch` is in sequences, `per_node` the ranks of a node."""
    return [
        torchtitan(shape, scheme, batch, per_node=per_node),
        megatron(shape, scheme, batch, per_node=per_node),
        deepspeed(shape, scheme, batch),
        hybrid_train(shape, scheme, batch, per_node=per_node),
    ]


def torchtitan(shape: Shape, scheme: Scheme, batch: int, *, per_node: int = 8) -> Flags:
    """The options of torchtitan's `run_train.sh` or `torchtitan.train`."""
    shard = gcd(scheme.dp, max(1, scheme.sharded // scheme.cp)) if scheme.zero else 1
    local = batch // scheme.dp if scheme.pp > 1 else scheme.microbatch
    options = {
        "training.seq_len": shape.seq,
        "training.local_batch_size": local,
        "training.global_batch_size": batch,
        "training.mixed_precision_param": "float32" if scheme.precision == "fp32" else "bfloat16",
        "parallelism.data_parallel_replicate_degree": scheme.dp // shard,
        "parallelism.data_parallel_shard_degree": shard,
        "parallelism.tensor_parallel_degree": scheme.tp,
        "parallelism.context_parallel_degree": scheme.cp,
        "parallelism.pipeline_parallel_degree": scheme.pp,
        "activation_checkpoint.mode": scheme.recompute,
    }
    if scheme.zero:
        options["parallelism.fsdp_reshard_after_forward"] = "always" if scheme.zero == 3 else "never"
    if scheme.pp > 1:
        stages = scheme.pp * scheme.stages_each
        options["parallelism.pipeline_parallel_schedule"] = TORCH_SCHEDULES.get(scheme.schedule, "1F1B")
        options["parallelism.pipeline_parallel_microbatch_size"] = scheme.microbatch
        options["parallelism.pipeline_parallel_layers_per_stage"] = -(-shape.layers // stages)
    if scheme.ep > 1:
        options["parallelism.expert_parallel_degree"] = scheme.ep
    if scheme.offload == "optimizer":
        options["training.enable_cpu_offload"] = None
    lines = [f"--{name}" if value is None else f"--{name} {value}" for name, value in options.items()]
    head = [_torchrun(scheme, per_node), "-m torchtitan.train"]
    return Flags("torchtitan", _continued([*head, *lines]), tuple(_torchtitan_notes(scheme)))


def _torchtitan_notes(scheme: Scheme) -> list[str]:
    notes = ["the model is named by its own configuration, and is not described by options"]
    if scheme.zero in (1, 2):
        notes.append("FSDP2 without resharding shards gradients and optimizer, as ZeRO-2; there is no ZeRO-1")
    if scheme.zero and scheme.sharded % scheme.cp:
        notes.append(f"it shards over all context ranks, and so has no groups of {scheme.shard}")
    if scheme.pp > 1 and scheme.schedule not in TORCH_SCHEDULES:
        notes.append(f"torch has no schedule {scheme.schedule}: 1F1B stands in its place")
    if scheme.recompute == "selective":
        notes.append("its selective mode keeps the products and recomputes the rest, which is not Megatron's choice")
    if scheme.tp > 1 and not scheme.sequence_parallel:
        notes.append("it shards activations over the tensor ranks in any case")
    if scheme.precision in ("fp8", "fp16"):
        notes.append(f"{scheme.precision} is no option: fp8 comes with its converter, fp16 has no loss scaling here")
    if scheme.offload == "optimizer":
        notes.append("enable_cpu_offload moves parameters and gradients as well")
    return notes


def megatron(shape: Shape, scheme: Scheme, batch: int, *, per_node: int = 8) -> Flags:
    """The options of Megatron-LM's `pretrain_gpt.py`."""
    parts = [*_megatron_model(shape), *_megatron_layout(shape, scheme), *_megatron_memory(scheme)]
    parts += [f"--micro-batch-size {scheme.microbatch}", f"--global-batch-size {batch}"]
    head = [_torchrun(scheme, per_node), "pretrain_gpt.py"]
    return Flags("Megatron-LM", _continued([*head, *parts]), tuple(_megatron_notes(scheme)))


def _megatron_model(shape: Shape) -> list[str]:
    parts = [
        f"--num-layers {shape.layers}",
        f"--hidden-size {shape.width}",
        f"--ffn-hidden-size {shape.hidden_width}",
        f"--num-attention-heads {shape.heads}",
        f"--seq-length {shape.seq}",
        f"--max-position-embeddings {shape.seq}",
        f"--normalization {'RMSNorm' if shape.norm == 'rms' else 'LayerNorm'}",
    ]
    if shape.kv_heads not in (None, shape.heads):
        parts += ["--group-query-attention", f"--num-query-groups {shape.kv_heads}"]
    if shape.positions == "rotary":
        parts += ["--position-embedding-type rope", f"--rotary-base {shape.rotary_base:.0f}"]
    if shape.experts > 1:
        parts += [f"--num-experts {shape.experts}", f"--moe-router-topk {shape.active_experts}"]
    chosen = {
        "--swiglu": shape.gated,
        "--disable-bias-linear": not shape.bias,
        "--untie-embeddings-and-output-weights": not shape.tied,
    }
    return parts + [name for name, wanted in chosen.items() if wanted]


def _megatron_layout(shape: Shape, scheme: Scheme) -> list[str]:
    parts = [f"--tensor-model-parallel-size {scheme.tp}", f"--pipeline-model-parallel-size {scheme.pp}"]
    if scheme.cp > 1:
        parts.append(f"--context-parallel-size {scheme.cp}")
    if scheme.ep > 1:
        parts.append(f"--expert-model-parallel-size {scheme.ep}")
    if scheme.tp > 1 and scheme.sequence_parallel:
        parts.append("--sequence-parallel")
    if scheme.pp > 1 and scheme.schedule == "interleaved" and scheme.chunks > 1:
        parts.append(f"--num-virtual-stages-per-pipeline-rank {scheme.chunks}")
    return parts


def _megatron_memory(scheme: Scheme) -> list[str]:
    recompute = {
        "none": [],
        "selective": ["--recompute-granularity selective"],
        "full": ["--recompute-granularity full", "--recompute-method uniform", "--recompute-num-layers 1"],
    }
    precision = {"bf16": ["--bf16"], "fp16": ["--fp16"], "fp8": ["--bf16", "--fp8-format hybrid"], "fp32": []}
    parts = precision[scheme.precision] + recompute[scheme.recompute]
    if scheme.zero:
        parts += ["--use-distributed-optimizer", "--overlap-grad-reduce", "--overlap-param-gather"]
    if scheme.zero in (2, 3):
        strategy = "optim_grads" if scheme.zero == 2 else "optim_grads_params"
        parts += ["--use-megatron-fsdp", f"--data-parallel-sharding-strategy {strategy}"]
        parts += ["--no-gradient-accumulation-fusion", "--ckpt-format fsdp_dtensor"]
    if scheme.zero and scheme.shard:
        parts.append(f"--num-distributed-optimizer-instances {scheme.dp * scheme.cp // scheme.shard}")
    if scheme.offload == "optimizer":
        parts += ["--optimizer-cpu-offload", "--use-precision-aware-optimizer"]
    return parts


def _megatron_notes(scheme: Scheme) -> list[str]:
    notes = []
    if scheme.pp > 1 and scheme.schedule not in ("1f1b", "interleaved"):
        notes.append(f"it has no schedule {scheme.schedule}: without an option it runs 1F1B")
    if scheme.zero in (2, 3) and scheme.pp > 1:
        notes.append("with a pipeline, sharded gradients are summed once a microbatch; ZeRO-1 is the usual choice")
    return notes


def deepspeed(shape: Shape, scheme: Scheme, batch: int) -> Flags:
    """The configuration file of DeepSpeed."""
    accumulated = max(1, scheme.microbatches(batch))
    zero: dict[str, object] = {"stage": scheme.zero, "overlap_comm": True}
    if scheme.offload == "optimizer":
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": True}
    if scheme.shard and scheme.zero == 3:
        zero["mics_shard_size"] = scheme.shard
    config: dict[str, object] = {
        "train_batch_size": scheme.dp * scheme.microbatch * accumulated,
        "train_micro_batch_size_per_gpu": scheme.microbatch,
        "gradient_accumulation_steps": accumulated,
        "gradient_clipping": 1.0,
        "zero_optimization": zero,
    }
    if scheme.precision in ("bf16", "fp8"):
        config["bf16"] = {"enabled": True}
    if scheme.precision == "fp16":
        config["fp16"] = {"enabled": True, "loss_scale": 0}
    if scheme.tp > 1:
        config["tensor_parallel"] = {"autotp_size": scheme.tp}
    return Flags("DeepSpeed", json.dumps(config, indent=2), tuple(_deepspeed_notes(scheme)))


def _deepspeed_notes(scheme: Scheme) -> list[str]:
    notes = []
    if scheme.pp > 1:
        notes.append(f"the pipeline is code, PipelineModule(layers, num_stages={scheme.pp}), and runs 1F1B")
    if scheme.pp > 1 and scheme.zero > 1:
        notes.append("its pipeline refuses ZeRO-2 and ZeRO-3: this scheme does not run there")
    if scheme.tp > 1 and scheme.zero == 3:
        notes.append("its automatic tensor parallelism goes with ZeRO 0 to 2: this scheme does not run there")
    if scheme.cp > 1:
        notes.append(f"context ranks are code, DeepSpeed-Ulysses with a sequence group of {scheme.cp}")
    if scheme.ep > 1:
        notes.append(f"experts are code, deepspeed.moe.layer.MoE(ep_size={scheme.ep})")
    if scheme.recompute != "none":
        notes.append(f"recomputation ({scheme.recompute}) is code, deepspeed.checkpointing.checkpoint")
    if scheme.shard and scheme.zero == 3:
        notes.append("mics_shard_size needs deepspeed.zero.MiCS_Init, and newer versions refuse it")
    if scheme.shard and scheme.zero in (1, 2):
        notes.append("below stage 3 it shards over all data ranks")
    if scheme.precision == "fp8":
        notes.append("fp8 products come from Transformer Engine, and not from this file")
    return notes


def hybrid_train(shape: Shape, scheme: Scheme, batch: int, *, per_node: int = 8) -> Flags:
    """The options of this course's `python -m parallel_lab.hybrid.train`, for a GPT of the same widths."""
    zero = 1 if scheme.zero == 2 else scheme.zero
    parts = [f"--{axis} {getattr(scheme, axis)}" for axis in ("pp", "dp", "cp", "tp", "ep")]
    parts += [f"--zero {zero}", f"--schedule {scheme.schedule}"]
    parts.append(f"--microbatches {max(1, scheme.microbatches(batch))}")
    if scheme.tp > 1 and scheme.sequence_parallel:
        parts.append("--sequence")
    if scheme.recompute == "full":
        parts.append("--recompute")
    parts += [f"--{name} {getattr(shape, name)}" for name in ("layers", "heads", "width", "vocab", "seq")]
    if shape.experts > 1:
        parts += [f"--experts {shape.experts}", f"--active-experts {shape.active_experts}"]
    parts += [f"--batch {batch}", f"--dtype {'float32' if scheme.precision == 'fp32' else 'bfloat16'}"]
    head = [_torchrun(scheme, per_node), "-m parallel_lab.hybrid.train"]
    return Flags("parallel_lab.hybrid.train", _continued([*head, *parts]), tuple(_hybrid_notes(shape, scheme)))


def _hybrid_notes(shape: Shape, scheme: Scheme) -> list[str]:
    notes = []
    if shape.gated or shape.kv_heads not in (None, shape.heads):
        notes.append("its model is a GPT of these widths: no gated feed-forward part, no shared key heads")
    if scheme.zero == 2:
        notes.append("it has ZeRO 0, 1 and 3: 1 stands in the place of 2")
    if scheme.schedule == "interleaved" and scheme.chunks != 2:
        notes.append(f"its interleaved schedule has 2 chunks a rank, and the scheme {scheme.chunks}")
    if scheme.recompute == "selective":
        notes.append("it recomputes everything or nothing: here nothing")
    if scheme.shard:
        notes.append("it shards over all data ranks")
    if scheme.precision in ("fp16", "fp8"):
        notes.append(f"it has no {scheme.precision}: bfloat16 stands in its place")
    if scheme.offload != "none":
        notes.append("it keeps the optimizer on the device")
    return notes


def _torchrun(scheme: Scheme, per_node: int) -> str:
    inside = min(per_node, scheme.world)
    nodes = -(-scheme.world // inside)
    return (
        f"torchrun --nnodes {nodes} --nproc-per-node {inside}" if nodes > 1 else f"torchrun --nproc-per-node {inside}"
    )


def _continued(parts: list[str]) -> str:
    """A command over several lines of at most 110 characters."""
    lines, line = [], ""
    for part in parts:
        if line and len(line) + len(part) > 108:
            lines.append(line)
            line = "   "
        line = f"{line} {part}" if line else part
    return " \\\n".join([*lines, line])
