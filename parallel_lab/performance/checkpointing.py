"""Activation checkpointing: what the backward pass needs is computed again instead of kept.

Chen et al. 2016, "Training deep nets with sublinear memory cost", section 4; selective: Korthikanti et al. 2022,
"Reducing activation recomputation in large Transformer models", section 5. A piece of the model runs without keeping
anything but its input. When the backward pass comes to it, it runs once more, and its own backward follows at once. So
one piece at a time is whole in memory, and its forward is paid twice.

    piece          kept of it                       computed again                            worth it
    block          its input, h                     the whole block, a third of a step        where memory is short
    feed_forward   its input (kept anyway)          2 of its 6 products                       2 hidden of 8 h + 2 hidden
    attention      its input (kept anyway)          4 linears and the core                    4 h and the log-sum-exp
    core           query, key, value (kept anyway)  scores and mix: few FLOPs                 where scores are kept

A fused attention kernel keeps no scores, so checkpointing the core saves one number a token and head there. Without
such a kernel (`plain_attention`) the scores are a s numbers a token and layer, the 5 a s / h of Korthikanti's equation
1: that is what selective recomputation was made for. Nothing is sent, and ranks do not matter.

PyTorch's `checkpoint(use_reentrant=False)` stops the second forward as soon as it has what backward needs: it leaves
out the last product of a piece, which `flops_again` counts.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from parallel_lab.model import GPTConfig
from parallel_lab.model.formulas import activation_bytes
from parallel_lab.model.gpt import GPT

Piece = Literal["none", "block", "feed_forward", "attention", "core"]


class _Again(torch.autograd.Function):
    """`fn(*inputs)`, whose inputs alone are kept; `parameters` come after the inputs, so that they get gradients."""

    @staticmethod
    def forward(ctx: Any, fn: Callable[..., Tensor], count: int, *tensors: Tensor) -> Tensor:
        ctx.fn, ctx.count, ctx.state = fn, count, torch.get_rng_state()
        ctx.gpu = torch.cuda.get_rng_state() if tensors[0].is_cuda else None  # dropout falls as it fell
        ctx.save_for_backward(*tensors)
        return fn(*tensors[:count])  # autograd is off in here: nothing is kept

    @staticmethod
    def backward(ctx: Any, *of_outputs: Tensor) -> Any:
        inputs, parameters = ctx.saved_tensors[: ctx.count], ctx.saved_tensors[ctx.count :]
        again = [each.detach().requires_grad_(each.requires_grad) for each in inputs]
        with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if ctx.gpu is not None else ()):
            torch.set_rng_state(ctx.state)
            if ctx.gpu is not None:
                torch.cuda.set_rng_state(ctx.gpu)
            with torch.enable_grad():
                output = ctx.fn(*again)
        wanted = [each for each in (*again, *parameters) if each.requires_grad]
        found = iter(torch.autograd.grad(output, wanted, of_outputs, allow_unused=True))
        return None, None, *(next(found) if each.requires_grad else None for each in (*again, *parameters))


def again(fn: Callable[..., Tensor], *inputs: Tensor, parameters: tuple[Tensor, ...] = ()) -> Tensor:
    """`fn(*inputs)`, one tensor, kept by its inputs alone and computed again in the backward pass.

    Args:
        fn: computes with `inputs` and `parameters`; dropout in it falls twice the same way.
        *inputs: the tensors that it is given.
        parameters: other tensors that it uses and that need gradients.
    """
    return _Again.apply(fn, len(inputs), *inputs, *parameters)


def checkpoint(model: GPT, piece: Piece = "block", every: int = 1) -> GPT:
    """Has `model` keep only the inputs of a `piece` of each block, or of each block whose number `every` divides.

    The model is changed in place and returned; its parameters and what it computes are the same.

    Raises:
        ValueError: there is no such piece, or `every` is below 1.
    """
    if piece not in ("none", "block", "feed_forward", "attention", "core") or every < 1:
        raise ValueError(
            f"piece={piece!r}, every={every}: expected none, block, feed_forward, attention or core, and 1+"
        )
    for number, block in enumerate(model.blocks):
        if piece == "none" or number % every:
            continue
        if piece == "core":
            attention: Any = block.attention
            attention.attend = partial(again, attention.attend)
        else:
            _wrap(block if piece == "block" else block.get_submodule(piece))
    return model


def _wrap(module: nn.Module) -> None:
    inner = module.forward

    def forward(x: Tensor, positions: Tensor | None = None) -> Tensor:
        given = {} if positions is None else {"positions": positions}
        return again(lambda x: inner(x, **given), x, parameters=tuple(module.parameters()))

    module.forward = forward


def plain_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Causal attention that keeps its scores, as before there were fused kernels; shapes as `causal_attention`."""
    scores = query @ key.mT / query.shape[-1] ** 0.5  # (batch, heads, seq, seq)
    hidden = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
    return scores.masked_fill(hidden, float("-inf")).softmax(-1) @ value


class FlopCounter(FlopCounterMode):
    """Counts FLOPs as `FlopCounterMode` does, also those of a backward pass inside a backward pass.

    PyTorch's own counts by module, with hooks that such a pass refuses.
    """

    def __init__(self) -> None:
        super().__init__(display=False)
        self.mod_tracker: Any = _Everywhere()


class _Everywhere:
    """What asks which module runs is told the whole."""

    parents = frozenset({"Global"})

    def __enter__(self) -> "_Everywhere":
        return self

    def __exit__(self, *_: object) -> None:
        pass


def kept_bytes(config: GPTConfig, batch: int, piece: Piece, every: int = 1, dtype_bytes: int = 4) -> int:
    """Bytes that autograd keeps between forward and backward with the fused attention of the CPU; see `checkpoint`."""
    tokens, layers = batch * config.seq, -(-config.layers // every)
    whole = activation_bytes(config, batch, dtype_bytes)
    log_sum_exp = tokens * config.heads * max(4, dtype_bytes)
    turns = dtype_bytes * config.seq * config.head_width if config.positions == "rotary" else 0
    hidden = (4 if config.gated else 2) * config.hidden_width
    mask = tokens * config.width * dtype_bytes if config.dropout else 0
    freed = {
        "none": 0,
        "block": (whole - activation_bytes(config, batch, dtype_bytes, recompute=True)) // config.layers,
        "feed_forward": dtype_bytes * tokens * hidden + mask,
        "attention": dtype_bytes * tokens * 2 * (config.width + config.kv_width) + log_sum_exp + turns + mask,
        "core": log_sum_exp,
    }
    return whole - layers * freed[piece]


def scores_bytes(config: GPTConfig, batch: int, dtype_bytes: int = 4) -> int:
    """Bytes of the probabilities that `plain_attention` keeps in all layers: a s numbers a token."""
    return config.layers * batch * config.heads * config.seq**2 * dtype_bytes


def flops_again(config: GPTConfig, batch: int, piece: Piece, every: int = 1) -> int:
    """FLOPs of the second forward passes of a step, attention over the full square.

    A product is 2 FLOPs a weight and token; scores and mix are 4 h s a token.
    """
    linears = 2 * config.width * (config.width + config.kv_width)
    core = 4 * config.width * config.seq
    feed_forward = 2 * (3 if config.gated else 2) * config.width * config.hidden_width
    of = {
        "none": 0,
        "block": 2 * linears + core + feed_forward,
        "feed_forward": feed_forward,
        "attention": 2 * linears + core,
        "core": core,
    }
    return -(-config.layers // every) * batch * config.seq * of[piece]
