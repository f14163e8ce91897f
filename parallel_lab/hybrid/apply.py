"""A GPT on a layout: `parallelize` reads as the order in which the axes are applied.

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

from parallel_lab.agree.arguments import check_rate, keyword_only, number, whole
from parallel_lab.agree.problem import agree
from parallel_lab.agree.same_model import broadcast_tensors, check_same_model
from parallel_lab.context_parallel import context_parallel
from parallel_lab.data_parallel import Zero1, Zero3
from parallel_lab.expert_parallel import expert_parallel, share_sequences
from parallel_lab.hybrid.layout import AXES, Layout, group_of
from parallel_lab.hybrid.parallel import Parallel, Several
from parallel_lab.hybrid.stages import Part, schedule_of, stages_of, tie
from parallel_lab.model.gpt import GPT
from parallel_lab.pipeline import placement
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
    rest: Any = (schedule, microbatches, context, sequence, capacity_factor, bias_rate, clip, optimizer_kwargs)
    plan = _agreed(lambda: _checked(model, mesh, layout, zero, shards, *rest))
    mesh = mesh or layout.mesh()
    groups = layout.groups(mesh)
    _start_equal(model, layout=layout, zero=zero, schedule=str(schedule), microbatches=microbatches, sequence=sequence)
    torch.manual_seed(seed_for(mesh, ["pp", "dp", "cp"], seed=seed))

    if layout.tp > 1:
        tensor_parallel(model, sequence=sequence, group=groups["tp"])
    if layout.cp > 1:
        context_parallel(model, method=context, group=groups["cp"])
        share_sequences(model, group=groups["cp"])
    if layout.ep > 1 or capacity_factor is not None:
        expert_parallel(model, capacity_factor=capacity_factor, group=groups["ep"])
    stages = stages_of(model, plan, groups["pp"].rank())
    tied = tie(model.config, stages, plan, groups["pp"])
    shards = shards or layout.data
    sharded = _sharded(stages, layout, groups["dp_cp"], shards) if zero == 3 else stages
    made = Parallel(
        layout, mesh, groups, model.config, sharded, plan, zero, shards, tied, clip, recompute, context, bias_rate
    )
    made.optimizer = _optimizer(made, optimizer, optimizer_kwargs)
    return made


def _agreed(find: Callable[[], Plan]) -> Plan:
    """What `find` returns; where it raises on some rank, all ranks stop, before anything is cut."""
    problem, found = None, None
    try:
        found = find()
    except (TypeError, ValueError) as error:
        problem = error
    with tag(phase="setup"):
        agree(problem, member(None), rank_device())
    assert found is not None
    return found


def _checked(model: Any, mesh: DeviceMesh | None, layout: Layout, zero: int, shards: int | None, *rest: Any) -> Plan:
    """The plan of the pipeline, once the arguments make sense."""
    schedule, microbatches, context, sequence, capacity_factor, bias_rate, clip, optimizer_kwargs = rest
    if not isinstance(model, GPT):
        raise TypeError(f"parallelize lays out a GPT, and this is a {type(model).__name__}")
    plan = schedule_of(schedule, layout.pp, whole("microbatches", microbatches))
    stages = len(placement(plan))
    layout.check(model.config, dist.get_world_size(), microbatches=microbatches, stages=stages, context=context)
    check_rate(optimizer_kwargs)
    number("bias_rate", bias_rate)
    if capacity_factor is not None and model.config.experts == 1:
        raise ValueError(f"capacity_factor={capacity_factor} is for experts, and this model has none")
    if sequence and model.config.experts > 1:
        raise ValueError("sequence=True leaves a rank a part of the tokens, and experts need all: choose one")
    if zero not in (0, 1, 3):
        raise ValueError(f"zero={zero!r}: expected 0, 1 or 3")
    if shards is not None and (zero != 3 or layout.data % whole("shards", shards)):
        raise ValueError(f"shards={shards} is for zero=3, and divides the {layout.data} data ranks")
    if zero == 3 and layout.ep > 1:
        raise ValueError(f"zero=3 shards a stage over all data ranks, and ep={layout.ep} cuts these: zero=1 or ep=1")
    if zero == 3 and model.config.tied and stages > layout.pp > 1:
        raise ValueError("zero=3 cannot share a tied weight between two stages of a rank: untie it, or zero=1")
    if clip is not None and not clip > 0:
        raise ValueError(f"clip={clip!r}: expected a number above 0, or None")
    if sequence and layout.tp == 1:
        raise ValueError("sequence=True shards activations over tp, and tp=1")
    expected = tuple(getattr(layout, axis) for axis in AXES)
    if mesh is not None and (mesh.mesh_dim_names != AXES or tuple(mesh.shape) != expected):
        raise ValueError(f"the mesh is {mesh}: expected {dict(zip(AXES, expected, strict=True))}, as layout.mesh()")
    return plan


def _start_equal(model: GPT, **settings: object) -> None:
    """All ranks have the same model, and start from rank 0's values."""
    model.to(rank_device())
    if dist.get_world_size() > 1:
        with tag(phase="setup"):
            check_same_model(model, member(None), **settings)
            broadcast_tensors([*model.parameters(), *model.buffers()], member(None))


def _sharded(stages: dict[int, Part], layout: Layout, data: dist.ProcessGroup, shards: int) -> dict[int, Zero3]:
    """The stages, of whose parameters each of `shards` neighboring data ranks keeps its rows."""
    group = data if shards == layout.data else _copies_and_shards(layout, shards)
    return {
        number: Zero3(part, units=part.blocks.values(), check_finite=False, group=group)
        for number, part in stages.items()
    }


def _copies_and_shards(layout: Layout, shards: int) -> DeviceMesh:
    """The data ranks of this rank's stage as a mesh of two axes: those with copies, and those that share one."""
    tables = [torch.tensor(row).view(-1, shards) for row in layout.rows("dp_cp")]
    copies = group_of([row for table in tables for row in table.T.tolist()], "copies")
    share = group_of([row for table in tables for row in table.tolist()], "shards")
    mine = next(table for table in tables if dist.get_rank() in table)
    return DeviceMesh.from_group([copies, share], rank_device().type, mine, mesh_dim_names=("copies", "shards"))


def _optimizer(made: Parallel, optimizer: Callable[..., torch.optim.Optimizer], settings: dict[str, Any]) -> Any:
    """What steps this rank's parameters: with zero=1 each data rank its part of them."""
    optimizers = []
    for axis, named in made.by_replicas().items():
        group = made.groups[axis]
        if made.zero == 1 and group.size() > 1:
            optimizers.append(Zero1(named.items(), optimizer, check_finite=False, group=group, **settings))
        else:
            optimizers.append(optimizer(list(named.values()), **settings))
    return optimizers[0] if len(optimizers) == 1 else Several(optimizers)
