"""Megatron-LM's functional tests read as schemes, so that `memory` can be held against what they measured.

    golden = read("gpt/gpt3_mcore_te_tp2_pp2", "dev_dgx_h100", args)
    predicted(golden).value                  # beside mem-max-allocated-bytes

Megatron-LM commits for each test the bytes that torch's allocator had handed out on the last rank: between steps, and
at most. Some of what decides them is no argument and stands in the test's name or file: how many GPUs, whether products
are deterministic (which makes cuBLAS take 32 MiB), whether layers are Transformer Engine's, whether attention is fused.
`read` takes it from the name by the rules below, and two numbers from files. `unexplained` names the tests that it
cannot know: they use a feature that is not among the arguments, or the golden is older than the test's arguments.

No number here is fitted: each rule says what the framework does. But the rules by name, and the 18 single rows of
`SINGLE` that are left out, were chosen with the goldens in view. So that the rest is within 5 % says that the account
of memory can be consistent with them, and is no forecast of rows that nobody has looked at. The public rows have no
experts: how tests with experts are read is not held against a measurement.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from parallel_lab.planner.activations import tokens
from parallel_lab.planner.memory import WORKSPACE_BYTES, at_rest, memory
from parallel_lab.planner.models import Latent, Model
from parallel_lab.planner.scheme import Scheme
from parallel_lab.planner.stages import padded_vocab
from parallel_lab.planner.terms import Term, total

AMPERE_WORKSPACE_BYTES = 4 * 2**20  # of Transformer Engine before Hopper
DEFAULT_WORKSPACE_BYTES = 2 * 4096 * 2**10 + 8 * 16 * 2**10  # of cuBLAS before Hopper: :4096:2:16:8

REASONS = {
    "grpo": "reinforcement learning: what its rollouts hold on the same GPUs is not among the arguments",
    "modelopt_distill": "a teacher beside the student, whose size is not among the arguments",
    "reruns_resume": "held and most held are one number, 67 GB: what a rerun keeps is not among the arguments",
    "fp8": "8 bits and overlapped tensor parallelism: which buffers they take is not among the arguments",
    "uninstall_te": "no fused kernels of Transformer Engine and Apex: more is kept",
    "release_sm_gb200": "how many nodes is not among the arguments, and two of its goldens are another layout's",
}
"""Why a test is left out: a word of its name, or an argument of it."""


@dataclass(frozen=True)
class Golden:
    """A test as a scheme.

    Attributes:
        shape, scheme, batch: what ran.
        framework_bytes: of the workspaces on its machine.
    """

    shape: Model
    scheme: Scheme
    batch: int
    framework_bytes: float


OLD = "seems older than the arguments: it agrees with attention that is not fused, to 1 %"
OLD_LOSS = "the fused loss of another version: it, or attention beside it, keeps more than on the other machines"
HELD_MORE = "holds 60 to 180 MB more than the other goldens of the same test on the same machine"
SINGLE = {
    ("gpt3_mcore_te_tp1_pp1_frozen_resume_torch_dist_dist_optimizer", "lts_dgx_a100"): OLD,
    ("gpt3_mcore_te_tp1_pp1_resume_torch_dist_dist_optimizer_no_mmap_bin_files", "lts_dgx_a100"): OLD,
    ("gpt3_mcore_te_tp1_pp4_frozen_resume_torch_dist_swiglu", "lts_dgx_a100"): OLD,
    ("gpt3_mcore_te_tp1_pp4_resume_torch_dist_disable_bias_linear", "lts_dgx_a100"): OLD,
    ("gpt3_mcore_te_tp1_pp4_resume_torch_dist_sequence_parallel", "lts_dgx_a100"): OLD,
    ("gpt3_mcore_te_tp1_pp4_resume_torch_dist_swiglu", "lts_dgx_a100"): OLD,
    ("gpt3_mcore_te_tp1_pp4_vp1_resume_torch_dist", "lts_dgx_a100"): OLD,
    ("gpt3_mcore_te_tp2_pp2_resume_torch_dist_no_mmap_bin_files", "lts_dgx_a100"): OLD,
    ("gpt3_mcore_te_tp1_pp4_vp1_resume_torch_dist_dist_optimizer_overlap_grad_reduce", "lts_dgx_a100_2nd"): HELD_MORE,
    ("gpt3_mcore_te_tp4_pp1_resume_torch_dist_dist_optimizer_overlap_grad_reduce", "lts_dgx_a100_2nd"): HELD_MORE,
    ("gpt3_mcore_te_tp2_pp2_resume_torch_dist_cp2_nondeterministic", "dev_dgx_h100_2nd"): HELD_MORE,
    ("gpt3_mcore_te_tp2_pp2_resume_torch_dist_cross_entropy_loss_fusion", "dev_dgx_h100_2nd"): HELD_MORE,
    ("gpt3_mcore_te_tp2_pp2_cross_entropy_loss_fusion", "dev_dgx_a100"): OLD_LOSS,
    ("gpt3_mcore_te_tp2_pp2_cross_entropy_loss_fusion", "lts_dgxa100_dracooci"): OLD_LOSS,
    ("gpt3_mcore_te_tp2_pp2_cross_entropy_loss_fusion", "lts_dgxa100_dracooci-ord"): OLD_LOSS,
    ("gpt3_mcore_te_tp2_pp2_resume_torch_dist_cross_entropy_loss_fusion", "dev_dgx_a100"): OLD_LOSS,
    ("gpt3_mcore_te_tp2_pp2_resume_torch_dist_cross_entropy_loss_fusion", "lts_dgxa100_dracooci"): OLD_LOSS,
    ("gpt3_mcore_te_tp2_pp2_resume_torch_dist_cross_entropy_loss_fusion", "lts_dgxa100_dracooci-ord"): OLD_LOSS,
}
"""Goldens that disagree with others of the same arguments, so that no rule can have both."""


def unexplained(case: str, golden: str, args: Mapping[str, Any]) -> str:
    """Why a row cannot be told from its arguments; empty where it can."""
    single = SINGLE.get((case.rpartition("/")[2], golden))
    if single:
        return single
    for word, reason in REASONS.items():
        if word in case or word in args:
            return reason
    return ""


def read(case: str, golden: str, args: Mapping[str, Any]) -> Golden:
    """A test of Megatron-LM: its name, whose golden it is, and its arguments without the dashes before them."""
    axes: Any = _axes(case, args)
    chunks, data = _chunks(args, axes["pp"]), axes["dp"] * axes["cp"]
    older = "dracooci" in golden and not _free(case, axes["cp"])
    unfused = args.get("attention-backend") == "unfused" or _local(case) or older
    scheme = Scheme(
        **axes,
        zero=3 if args.get("use-megatron-fsdp") else 1 if args.get("use-distributed-optimizer") else 0,
        shard=data // 2 if "multi_dist_optimizer_instances" in case else None,
        sequence_parallel=bool(args.get("sequence-parallel")),
        schedule="interleaved" if chunks > 1 else "1f1b",
        chunks=chunks,
        microbatch=int(args["micro-batch-size"]),
        recompute=args.get("recompute-granularity", "none"),
        precision="fp16" if args.get("fp16") else "bf16",
        attention="unfused" if unfused else "fused",
    )
    shape = _shape(case, args)
    batch = int(args.get("global-batch-size", 1152))
    return Golden(shape, scheme, batch, _framework(case, golden, shape, scheme))


def _axes(case: str, args: Mapping[str, Any]) -> dict[str, int]:
    """What is left of the GPUs for data: a node of eight, or of four; of the release tests sixteen data ranks."""
    named = {"pp": "pipeline-model", "tp": "tensor-model", "cp": "context"}
    axes = {axis: int(args.get(f"{word}-parallel-size", 1)) for axis, word in named.items()}
    model = axes["pp"] * axes["tp"] * axes["cp"]
    world = 16 * model if "release" in case else 4 if "_1node" in case else 8
    axes["dp"] = max(1, world // model)
    named_ep = re.search(r"experts(\d+)parallel|_ep(\d+)", case)
    ep = int(args.get("expert-model-parallel-size") or next(filter(None, named_ep.groups() if named_ep else ()), 1))
    return axes | {"ep": ep if axes["dp"] * axes["cp"] % ep == 0 else 1}


def _experts(case: str, args: Mapping[str, Any]) -> dict[str, Any]:
    """How many experts, and how many a token goes through; Megatron-LM's default is 2."""
    named = re.search(r"(\d+)experts", case)
    count = int(args.get("num-experts") or (named[1] if named else 1))
    return {"experts": count, "active_experts": min(count, int(args.get("moe-router-topk", 2)))}


def _chunks(args: Mapping[str, Any], pp: int) -> int:
    each = args.get("num-layers-per-virtual-pipeline-stage")
    if each and pp > 1:
        return int(args["num-layers"]) // pp // int(each)
    return int(args.get("num-virtual-stages-per-pipeline-rank", 1))


def predicted(golden: Golden) -> Term:
    """What the last rank holds at most."""
    where = {"rank": golden.scheme.pp - 1, "framework_bytes": golden.framework_bytes}
    found = memory(golden.shape, golden.scheme, golden.batch, **where)
    return total("memory", [*found, *_of_features(golden)], formula=found.formula)


def _of_features(golden: Golden) -> Iterator[Term]:
    """What two features of the head add, which a scheme does not know.

    A fused loss keeps the logits in float32 a second time. A late product with the head's inputs keeps those and the
    gradients of the logits, of two microbatches (the tests' files have a limit of 2).
    """
    places, case = tokens(golden.shape, golden.scheme), golden.shape.name
    columns = padded_vocab(golden.shape, golden.scheme) / golden.scheme.tp
    if "cross_entropy_loss_fusion" in case:
        yield Term("fused loss", 4 * places * columns, "B", "4 x s b V / tp")
    if "defer_embedding_wgrad" in case:
        yield Term("late product", 2 * 2 * places * (columns + golden.shape.width), "B", "2 x 2 x s b (V / tp + h)")


def between_steps(golden: Golden) -> Term:
    """What the last rank holds when a step is over."""
    where = {"rank": golden.scheme.pp - 1, "framework_bytes": golden.framework_bytes}
    return at_rest(golden.shape, golden.scheme, golden.batch, **where)


def _shape(case: str, args: Mapping[str, Any]) -> Model:
    width, gated = int(args["hidden-size"]), bool(args.get("swiglu"))
    pp = int(args.get("pipeline-model-parallel-size", 1))
    usual = args.get("ffn-hidden-size", int(4 * width * 2 / 3) // 64 * 64 if gated else 4 * width)
    hidden = int(args.get("moe-ffn-hidden-size", usual))
    release = "release" in case
    return Model(
        name=case,
        vocab=int(args.get("vocab-size", 256_000 if release else 50_257)),
        seq=int(args["seq-length"]),
        layers=2 * pp if "uneven_pipeline" in case else int(args["num-layers"]),  # the file gives both ends two layers
        heads=int(args["num-attention-heads"]),
        kv_heads=int(args["num-query-groups"]) if "num-query-groups" in args else None,
        width=width,
        head=int(args["kv-channels"]) if "kv-channels" in args else None,
        hidden=hidden,
        gated=gated,
        tied=not args.get("untie-embeddings-and-output-weights", False),
        bias=not ("disable_bias" in case or release),
        positions="rotary" if "rope" in case or release else "learned",
        norm="rms" if args.get("normalization") == "RMSNorm" else "layer",
        dropout=0.0 if release else 0.1,
        qk_norm="qk_layernorm" in case,
        latent=Latent(0, 32, 128, 64, 128) if args.get("multi-latent-attention") else None,  # its defaults
        **_experts(case, args),
    )


def _local(case: str) -> bool:
    """Whether layers are Megatron's own: its tests with Transformer Engine say so in their names."""
    return "gpt3_mcore_tp" in case


def _free(case: str, cp: int) -> bool:
    """Whether products need not be deterministic; tests with a context axis need not."""
    return any(word in case for word in ("nondeterministic", "release", "reshard", "loss_fusion")) or cp > 1


def _framework(case: str, golden: str, shape: Model, scheme: Scheme) -> float:
    """Workspaces: cuBLAS' of two threads, and Transformer Engine's, or the scores that Megatron's own layers reuse."""
    ampere = "a100" in golden or golden == "lts"
    cublas = DEFAULT_WORKSPACE_BYTES if ampere and _free(case, scheme.cp) else WORKSPACE_BYTES
    engine = AMPERE_WORKSPACE_BYTES if ampere else WORKSPACE_BYTES
    if _local(case):
        engine = 2 * scheme.microbatch * shape.heads // scheme.tp * shape.seq**2
    return 2.0 * cublas + engine
