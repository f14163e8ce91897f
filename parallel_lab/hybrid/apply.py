"""A GPT on a layout: `apply_axes` reads as the order in which the axes are applied.

Narayanan et al. 2021, "Efficient Large-Scale Language Model Training on GPU Clusters Using Megatron-LM", section 2,
puts tensor, pipeline and data parallelism together; Grattafiori et al. 2024, "The Llama 3 Herd of Models", section
3.3.2, adds the context, Liu et al. 2024, "DeepSeek-V3", section 3.2, the experts. What cuts *inside* a layer comes
first, for it changes modules and parameters: tensor, context, expert. Then whole layers are dealt out to the stages.
Data comes last: it shards what is left on the rank, and what it averages must be what the rank really trains.

    sharded                parameters over pp and tp, experts over ep; tokens over dp (rows) and cp (columns); over
                           dp x cp the optimizer's state (zero=1) or everything (zero=3)
    replicated             norms, positions and some biases over tp; a tied embedding over the first and the last stage
    sent per step          what each technique says, each over its own axis; gradients over dp x cp alone, and those of
                           experts over the ranks that hold the same expert

Every rank builds the whole model, so it has to fit a machine's memory once.
"""

from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh

from parallel_lab.agree.arguments import keyword_only
from parallel_lab.agree.same_model import broadcast_tensors, check_same_model
from parallel_lab.context_parallel import context_parallel
from parallel_lab.expert_parallel import expert_parallel, share_sequences
from parallel_lab.hybrid.data import shard_optimizer, shard_stages
from parallel_lab.hybrid.layout import Layout
from parallel_lab.hybrid.parallel import Parallel
from parallel_lab.hybrid.settings import Settings
from parallel_lab.hybrid.stages import stages_of, tie
from parallel_lab.model.gpt import GPT
from parallel_lab.plan import Plan
from parallel_lab.runtime import rank_device, seed_for
from parallel_lab.runtime.group import member
from parallel_lab.tensor_parallel import tensor_parallel
from parallel_lab.trace import tag


@keyword_only("lr")
def parallelize(
    model: GPT,
    layout: Layout,
    mesh: DeviceMesh | None = None,
    *,
    optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.AdamW,
    zero: int = 1,
    shards: int | None = None,
    schedule: str | Callable[[int, int], Plan] = "1f1b",
    microbatches: int = 1,
    context: Literal["ring", "ulysses"] = "ring",
    sequence: bool = False,
    capacity_factor: float | None = None,
    bias_rate: float = 0.0,
    recompute: bool = False,
    clip: float | None = 1.0,
    seed: int = 0,
    **optimizer_kwargs: Any,
) -> Parallel:
    """Lays `model` out over all ranks and uses it up; `train_step` then trains it as one process would.

    Weights start from those of rank 0. Dropout is seeded: masks agree along tp, whose activations are copies, and
    differ along pp, dp and cp.

    Args:
        model: a whole `GPT`, built in the same way on every rank.
        layout: how many ranks each axis has.
        mesh: of the axes pp, dp, cp and tp; by default `layout.mesh()`.
        optimizer: its class, one that treats each element by itself. It gets `lr` and the like.
        zero: what the dp x cp ranks shard: 0 nothing, 1 the optimizer's state, 3 also parameters and gradients.
        shards: with zero=3, how many neighboring data ranks share a parameter; the others have copies of it (hybrid
            sharding). By default all of them.
        schedule: gpipe, 1f1b, interleaved, zb_h1, zb_h2, zb_v, dualpipe_v; or a function of p and m to a plan.
        microbatches: how many a step has.
        context: how attention crosses cp: `ring` or `ulysses`.
        sequence: shard the activations between the cut parts of tp along the sequence.
        capacity_factor: of experts; None drops no token.
        bias_rate: by how much a step moves the bias that balances experts, see `expert_parallel.update_bias`.
        recompute: keep only the inputs of stages, and compute activations again.
        clip: the largest global norm of the gradients; None leaves them.
        seed: of dropout.
        optimizer_kwargs: what the optimizer gets.

    Raises:
        TypeError: the model is no GPT, or an argument is of the wrong type.
        ValueError: the layout cannot train the model, or ranks have different models or settings. Nothing was cut.
    """
    settings = Settings(
        zero=zero,
        shards=layout.data if shards is None else shards,
        schedule=schedule,
        microbatches=microbatches,
        context=context,
        sequence=sequence,
        capacity_factor=capacity_factor,
        bias_rate=bias_rate,
        recompute=recompute,
        clip=clip,
    )
    plan = settings.checked_plan(model, layout, mesh, optimizer_kwargs)
    start_equal(model, layout=layout, seed=seed, lr=optimizer_kwargs.get("lr"), **settings.agreed())
    mesh = mesh or layout.mesh()
    torch.manual_seed(seed_for(mesh, ["pp", "dp", "cp"], seed=seed))
    made = apply_axes(model, layout, mesh, plan, settings)
    made.optimizer = shard_optimizer(made, optimizer, optimizer_kwargs)
    return made


def apply_axes(model: GPT, layout: Layout, mesh: DeviceMesh, plan: Plan, settings: Settings) -> Parallel:
    """This rank's part of the model, without an optimizer yet: tensor, context, expert, stages, data, in this order."""
    groups = layout.groups(mesh)
    if layout.tp > 1:
        tensor_parallel(model, sequence=settings.sequence, group=groups["tp"])
    if layout.cp > 1:
        context_parallel(model, method=settings.context, group=groups["cp"])
        share_sequences(model, group=groups["cp"])
    if layout.ep > 1 or settings.capacity_factor is not None:
        expert_parallel(model, capacity_factor=settings.capacity_factor, group=groups["ep"])
    parts = stages_of(model, plan, groups["pp"].rank())
    tied = tie(model.config, parts, plan, groups["pp"])
    stages = shard_stages(parts, layout, groups, zero=settings.zero, shards=settings.shards)
    where: Any = {"layout": layout, "mesh": mesh, "groups": groups, "config": model.config}
    return Parallel(stages=stages, plan=plan, tied=tied, **where, **vars(settings))


def start_equal(model: GPT, **settings: object) -> None:
    """All ranks have the same model and settings, and start from rank 0's values."""
    model.to(rank_device())
    if dist.get_world_size() > 1:
        with tag(phase="setup"):
            check_same_model(model, member(None), **settings)
            broadcast_tensors([*model.parameters(), *model.buffers()], member(None))
