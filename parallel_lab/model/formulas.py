"""What a `GPT` costs, in closed form: parameters, FLOPs per token, bytes of activations.

Letters of the papers: h width, s sequence, b batch, a heads, L layers, V vocabulary, r mlp_ratio. Models of Llama's
kind, which no rank here can build, are counted in `budget`.

Sources: Kaplan et al. 2020, "Scaling Laws for Neural Language Models", section 2.1 (parameters, FLOPs);
Chowdhery et al. 2022, "PaLM", appendix B (FLOPs with attention); Korthikanti et al. 2022, "Reducing Activation
Recomputation in Large Transformer Models", section 4 (activations). The tests hold each form against a measurement.
"""

from parallel_lab.model.gpt import GPTConfig

TOKEN_BYTES = 8  # int64


def matmul_parameters(config: GPTConfig) -> int:
    """The weights that a token is multiplied with: L (4 + 2r) h^2 + V h.

    The first term is Kaplan's N without embeddings (section 2.1, equation 2.1, where r = 4 gives 12 L h^2). V h is the
    output layer; it multiplies whether or not it is tied. Looking up an embedding multiplies nothing.
    """
    return config.layers * (4 + 2 * config.mlp_ratio) * config.width**2 + config.vocab * config.width


def parameter_count(config: GPTConfig) -> int:
    """How many numbers `GPT(config).parameters()` holds; tied weights count once."""
    h = config.width
    tables = (config.vocab + config.seq) * h
    norms = (2 * config.layers + 1) * h
    # Per block: query, key, value, out and down add h each, up adds r h, and a norm has one bias for each weight.
    biases = config.layers * (5 + config.mlp_ratio) * h + norms if config.bias else 0
    shared = config.vocab * h if config.tied else 0
    return tables + matmul_parameters(config) + norms + biases - shared


def flops_per_token(config: GPTConfig, causal: bool = False) -> int:
    """FLOPs of forward and backward for one token of a full sequence: 6 N + 12 L h s (PaLM, appendix B).

    The convention: a multiply and an add are two FLOPs; only matrix products count; a backward pass is two products for
    each of the forward pass, hence 6 = 2 + 4. N is `matmul_parameters`: PaLM's N counts all parameters, here the tables
    that are only looked up are left out. In attention, Q K^T and the sum over values are 2 h s each; the whole square
    counts, although a causal kernel can skip half of it, and what a fused kernel computes again in its backward pass
    (Q K^T, 2 L h s) does not. Kaplan's table 1 has 2 L h s where the forward pass here has 4 L h s. With `causal` only
    the s (s + 1) / 2 pairs of tokens that see each other count: 6 L h (s + 1).
    """
    attention = 6 * (config.seq + 1) if causal else 12 * config.seq
    return 6 * matmul_parameters(config) + attention * config.layers * config.width


def block_activation_bytes(config: GPTConfig, batch: int, dtype_bytes: int = 4) -> int:
    """Bytes that autograd keeps for one block, from its forward to its backward pass.

    In units of b s h: the block's input and its norm, query, key, value, the attention's output, the second norm's
    input and output, and twice r around the GELU: 8 + 2r. Then the mean and deviation of two norms per token, and a
    log-sum-exp for each token and head.

    Korthikanti's 34 s b h bytes (equation 1, two bytes per number, r = 4) are these 16 b s h numbers and two dropout
    masks of one byte; their 5 a b s^2 bytes for the attention scores are what the fused kernel does away with.
    """
    tokens = batch * config.seq
    numbers = tokens * config.width * (8 + 2 * config.mlp_ratio) + 4 * tokens
    log_sum_exp_bytes = tokens * config.heads * max(4, dtype_bytes)  # never below float32
    return dtype_bytes * (numbers + 2 * _mask(config, tokens)) + log_sum_exp_bytes


def activation_bytes(config: GPTConfig, batch: int, dtype_bytes: int = 4, recompute: bool = False) -> int:
    """Bytes that autograd keeps for `loss(GPT(config)(tokens), targets)`: each storage once, parameters left out.

    Beyond the blocks: the tokens and the targets; the last norm's input, output, mean and deviation; the
    log-probabilities (V per token); and the loss's total weight, one number. It is exact for `batch` full
    sequences, inputs and targets in storages of their own, the CPU's kernels, and all weights in one dtype. A GPU's
    kernels differ in the small terms and keep a dropout mask in one byte where the CPU keeps `dtype_bytes`.

    With `recompute` each block runs under `torch.utils.checkpoint` and keeps its input alone. One block at a time is
    then whole again in the backward pass, after the head's share is freed: `block_activation_bytes` come on top.
    """
    tokens = batch * config.seq
    head = tokens * (2 * config.width + 2 + config.vocab) + 1
    ends = dtype_bytes * (head + _mask(config, tokens)) + 2 * TOKEN_BYTES * tokens
    block = dtype_bytes * tokens * config.width if recompute else block_activation_bytes(config, batch, dtype_bytes)
    return config.layers * block + ends


def _mask(config: GPTConfig, tokens: int) -> int:
    return tokens * config.width if config.dropout else 0
