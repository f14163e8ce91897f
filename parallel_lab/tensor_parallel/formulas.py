"""What tensor and sequence parallelism send and hold, in closed form; the tests hold each against a recorded run.

n is the number of ranks of the group, S = b s h e the bytes of one activation (b sequences of s tokens, width h, e
bytes a number), t = b s the tokens, L layers, V the vocabulary. Bytes are those that one rank sends, with built-in
collectives counted as rings. s is padded to a multiple of n under sequence parallelism.

Sources: Shoeybi et al. 2019, "Megatron-LM", section 3; Korthikanti et al. 2022, "Reducing activation recomputation in
large transformer models", section 4 and equations 2 and 4.
"""

from typing import NamedTuple

from parallel_lab.model.formulas import TOKEN_BYTES
from parallel_lab.model.gpt import GPTConfig


class Passes(NamedTuple):
    """Bytes that a rank sends in the forward pass and in the backward pass."""

    forward: float
    backward: float


def column_bytes(activation_bytes: int, n: int, gathered_bytes: int = 0) -> Passes:
    """A column linear: the input's gradient is summed; `gathered_bytes` are those of a whole output, if it is gathered.

    `activation_bytes` are those of the input.
    """
    return Passes(_part(gathered_bytes, n), 2 * _part(activation_bytes, n))


def row_bytes(activation_bytes: int, n: int) -> Passes:
    """A row linear, whose output of `activation_bytes` is summed."""
    return Passes(2 * _part(activation_bytes, n), 0)


def block_bytes(activation_bytes: int, n: int) -> Passes:
    """A block: two all-reduces each way, or as many all-gathers and reduce-scatters: 4 (n-1)/n S each way."""
    return Passes(*[4 * _part(activation_bytes, n)] * 2)


def embedding_bytes(activation_bytes: int, n: int, sequence: bool = False) -> Passes:
    """The embedding: an all-reduce forward; with `sequence` a reduce-scatter, and an all-gather backward."""
    share = _part(activation_bytes, n)
    return Passes(share, share) if sequence else Passes(2 * share, 0)


def head_bytes(activation_bytes: int, n: int, sequence: bool = False) -> Passes:
    """The output layer: its input's gradient is all-reduced; with `sequence` an all-gather and a reduce-scatter."""
    share = _part(activation_bytes, n)
    return Passes(share, share) if sequence else Passes(0, 2 * share)


def loss_bytes(tokens: int, n: int, dtype_bytes: int = 4) -> float:
    """The loss: three all-reduces of a number a token, in two calls: 6 (n-1)/n t e, all forward."""
    return 6 * _part(tokens * dtype_bytes, n)


def gathered_logits_bytes(tokens: int, vocab: int, n: int, dtype_bytes: int = 4) -> float:
    """What gathering the logits would send instead: (n-1)/n t V e, V/6 times as much."""
    return _part(tokens * vocab * dtype_bytes, n)


def replicated_numbers(config: GPTConfig) -> int:
    """The parameters whose gradients are summed once a step under sequence parallelism: 6 h a block, and 2 h.

    Weights and biases of two norms, and the biases of two row linears; then the last norm. RMS norms have no biases.
    """
    norm = 2 if config.bias and config.norm == "layer" else 1
    block = 2 * norm + (2 if config.bias else 0)
    return (config.layers * block + norm) * config.width


def copies(config: GPTConfig, n: int) -> int:
    """How many ranks hold the same key-value head; 1 if each has its own."""
    return max(1, n // (config.kv_heads or config.heads))


def copied_numbers(config: GPTConfig, n: int) -> int:
    """The numbers of copied key-value heads on one rank, padded to a multiple of the copies; 0 where none is copied."""
    held = copies(config, n)
    numbers = 2 * config.layers * config.head_width * (config.width + config.bias)
    return -(-numbers // held) * held if held > 1 else 0


def step_bytes(config: GPTConfig, batch: int, n: int, sequence: bool = False, dtype_bytes: int = 4) -> float:
    """What a rank sends in one step: forward and backward of `batch` full sequences, the loss, replicated gradients."""
    padded = -(-config.seq // n) * n if sequence else config.seq
    activation_bytes = batch * padded * config.width * dtype_bytes
    parts = [block_bytes(activation_bytes, n)] * config.layers
    parts += [embedding_bytes(activation_bytes, n, sequence), head_bytes(activation_bytes, n, sequence)]
    once = 2 * _part(replicated_numbers(config) * dtype_bytes, n) if sequence else 0
    once += 2 * _part(copied_numbers(config, n) * dtype_bytes, copies(config, n))
    return sum(map(sum, parts)) + loss_bytes(batch * config.seq, n, dtype_bytes) + once


def parameters(config: GPTConfig, n: int) -> int:
    """The numbers that one rank holds, padding of the vocabulary included."""
    h, kv, hidden = config.width, config.kv_width * copies(config, n) // n, config.hidden_width // n
    matrices = 2 * h * h // n + 2 * h * kv + (3 if config.gated else 2) * h * hidden
    biases = (3 * h + (h // n - h) + 2 * kv + (2 if config.gated else 1) * hidden) if config.bias else 0
    norm = (2 if config.bias and config.norm == "layer" else 1) * h
    tables = -(-config.vocab // n) * h * (1 if config.tied else 2)
    positions = config.seq * h if config.positions == "learned" else 0
    return config.layers * (matrices + biases + 2 * norm) + norm + tables + positions


def block_activation_bytes(
    config: GPTConfig, batch: int, n: int, sequence: bool = False, dtype_bytes: int = 4
) -> float:
    """Bytes that autograd keeps on one rank for one block, where n divides s; the account of `model.formulas`, cut.

    In numbers of b s h, with as many key-value heads as heads, GELU and a hidden layer of 4 h: 4 + 12/n, the inputs of
    both norms and of both parts whole, all else cut; with `sequence` 2 + 14/n, since only the gathered inputs of both
    parts are whole.
    Beside it what norms note for each token (cut with `sequence`), the log-sum-exp of each token and head (cut), and
    two dropout masks: whole, as the CPU keeps them, or with `sequence` cut and of one byte.

    Korthikanti's 10 + 24/n and 34/n bytes (equations 2 and 4) are the same with two bytes a number and masks of one
    byte; for 34/n the gathered inputs are not kept but gathered again.
    """
    tokens = batch * config.seq
    kv = config.kv_width * copies(config, n) / n
    hidden = (4 if config.gated else 2) * config.hidden_width / n
    inside = 2 * config.width / n + 2 * kv + hidden  # query and what attention gives, key and value, hidden columns
    numbers = tokens * (2 * config.width + inside)
    turns = config.seq * config.head_width if config.positions == "rotary" else 0
    log_sum_exp = max(4, dtype_bytes) * tokens * config.heads / n  # never below float32
    between = _between_bytes(config, tokens, n, sequence, dtype_bytes)
    return dtype_bytes * (numbers + turns) + log_sum_exp + 2 * between


def activation_bytes(config: GPTConfig, batch: int, n: int, sequence: bool = False, dtype_bytes: int = 4) -> float:
    """Bytes that autograd keeps on rank 0 for a step's forward pass and loss, parameters left out.

    Beyond the blocks: what the last norm keeps, the whole input of the output layer, and the softmax of this rank's
    logits, V/n numbers a token (rank 0 has as many tokens as any). Each token and each target keeps its place in the
    table; the token whether it is foreign, the target that and whether it counts; and the loss keeps how many count.
    """
    tokens = batch * config.seq
    head = dtype_bytes * tokens * (config.width - (-config.vocab // n))
    between = _between_bytes(config, tokens, n, sequence, dtype_bytes)
    places = tokens * (2 * TOKEN_BYTES + 3) + TOKEN_BYTES
    blocks = config.layers * block_activation_bytes(config, batch, n, sequence, dtype_bytes)
    return blocks + head + between + places


def _between_bytes(config: GPTConfig, tokens: int, n: int, sequence: bool, dtype_bytes: int) -> float:
    """What a norm keeps, its input and what it notes for each token, and a dropout mask; with `sequence` an n-th."""
    here = tokens / n if sequence else tokens
    mask = here * config.width * (1 if sequence else dtype_bytes) if config.dropout else 0
    if config.norm == "layer":
        return dtype_bytes * here * (config.width + 2) + mask
    return max(4, dtype_bytes) * here * (2 * config.width + 1) + mask


def _part(size_bytes: int, n: int) -> float:
    """(n-1)/n of it."""
    if n < 1:
        raise ValueError(f"n={n}: expected at least 1 rank")
    return size_bytes * (n - 1) / n
