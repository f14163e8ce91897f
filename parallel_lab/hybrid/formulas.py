"""What a rank of a layout holds and sends by axis in one step, in closed form; a test holds it against recorded runs.

pp, dp, cp and tp are the ranks along the axes, B the sequences of a global batch, s their tokens, h the width, h_kv
that of all key-value heads, e bytes a number. A rank works on B/dp sequences and s/cp of their tokens, so an activation
of all its microbatches together has S = B/dp s/cp h e bytes, and that is what all axes but data send, over and over:

    pp      S to the next stage and S to the one before; a tied weight's gradient, V/tp h e, once
    tp      8 (tp-1)/tp S a block (4 each way), and what embedding, head and loss add
    cp      3 (cp-1) S_KV a block, S_KV = 2 S h_kv/h/tp the bytes of keys and values; 4 (cp-1) S_KV where e is 2, for
            sums are float32
    data    2 (n-1)/n N e a step, n = dp cp, N the numbers that the rank holds; with zero=1 or 3 3 (n-1)/n N e

The first three grow with the batch and the last does not. Which goes over the slowest links is decided by these four
numbers, and by what can be hidden: data's may travel beside the backward pass, tp's stand in the way of every block.
Beside them a step sends less than 100 bytes a rank: flags, the loss, the norm; the first step also a header of 2 KiB
with each microbatch from stage to stage. For dense models and the ring; one stage a rank; dp, cp, n and tp divide what
they cut.

Sources: Narayanan et al. 2021, "Efficient Large-Scale Language Model Training on GPU Clusters Using Megatron-LM",
section 3.2 for pp and tp; the formulas of the techniques for each.
"""

import dataclasses

from parallel_lab.context_parallel import formulas as context
from parallel_lab.hybrid.layout import Layout
from parallel_lab.hybrid.stages import layers_of
from parallel_lab.model.config import GPTConfig
from parallel_lab.tensor_parallel import formulas as tensor


def parameters(config: GPTConfig, layout: Layout, stage: int) -> int:
    """N: the numbers that a rank of the stage holds, before data shards them; padding of the vocabulary included."""
    layers, count = layers_of(config, layout.pp)[stage], config.layers
    one, two = (tensor.parameters(dataclasses.replace(config, layers=k), layout.tp) for k in (1, 2))
    table = -(-config.vocab // layout.tp) * config.width
    positions = config.seq * config.width if config.positions == "learned" else 0
    blocks = sum(1 <= layer <= count for layer in layers)
    first, last = 0 in layers, count + 1 in layers
    norm = one - (two - one) - table * (1 if config.tied else 2) - positions
    tables = first + (last and not (config.tied and first))
    return blocks * (two - one) + first * positions + last * norm + tables * table


def step_bytes(
    config: GPTConfig, layout: Layout, stage: int, batch: int, *, zero: int = 1, dtype_bytes: int = 4
) -> dict[str, float]:
    """What a rank of the stage sends in one step of full sequences: by `pp`, `tp`, `cp` and `dp_cp`.

    Args:
        config: of a dense model.
        layout: how many ranks each axis has.
        stage: which the rank has.
        batch: the sequences of the global batch.
        zero: 0 or 1; with 3, gathers depend on the units and microbatches: see `data_parallel.formulas`.
        dtype_bytes: of parameters and activations.

    Raises:
        ValueError: zero is not 0 or 1.
    """
    if zero not in (0, 1):
        raise ValueError(f"zero={zero}: expected 0 or 1")
    layers, n = layers_of(config, layout.pp)[stage], layout.data
    rows, tokens = batch // layout.dp, config.seq // layout.cp
    activation = rows * tokens * config.width * dtype_bytes
    blocks = sum(1 <= layer <= config.layers for layer in layers)
    first, last = 0 in layers, config.layers + 1 in layers
    tp = blocks * sum(tensor.block_bytes(activation, layout.tp))
    tp += first * sum(tensor.embedding_bytes(activation, layout.tp))
    tp += last * (
        sum(tensor.head_bytes(activation, layout.tp)) + tensor.loss_bytes(rows * tokens, layout.tp, dtype_bytes)
    )
    kv_heads = max(1, (config.kv_heads or config.heads) // layout.tp)
    shard = context.shard_bytes(rows, config.seq, kv_heads, config.head_width, layout.cp, dtype_bytes)
    tied = config.tied and layout.pp > 1 and (first or last)
    gradients = parameters(config, layout, stage) * dtype_bytes * (n - 1) / n
    return {
        "pp": activation * ((not first) + (not last))
        + tied * -(-config.vocab // layout.tp) * config.width * dtype_bytes,
        "tp": tp,
        "cp": blocks * sum(context.ring_bytes(shard, layout.cp, dtype_bytes)),
        "dp_cp": (3 if zero else 2) * gradients,
    }
