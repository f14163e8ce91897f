"""What a `GPT` costs, in closed form: parameters, FLOPs per token, bytes of activations.

Letters: h width, s tokens per sequence, b sequences, a heads, L layers, V vocabulary; h_kv the width of all key-value
heads (h unless grouped), hidden that of the hidden layer (mlp_ratio h). `budget` has the shapes of large models.

Sources: Kaplan et al. 2020, "Scaling Laws for Neural Language Models", section 2.1 (parameters, FLOPs);
Chowdhery et al. 2022, "PaLM", appendix B (FLOPs with attention); Korthikanti et al. 2022, "Reducing Activation
Recomputation in Large Transformer Models", section 4 (activations). The tests hold each form against a measurement.
"""

from parallel_lab.model.config import GPTConfig

TOKEN_BYTES = 8  # int64


def matmul_parameters(config: GPTConfig) -> int:
    """The weights that a token is multiplied with: L (2 h (h + h_kv) + 2 h hidden) + V h; 3 h hidden where gated.

    Of E experts those are the K active ones, K times 2 h hidden, and the router, h E.

    With h_kv = h and hidden = mlp_ratio h the first term is L (4 + 2 mlp_ratio) h^2, Kaplan's N without embeddings
    (section 2.1, equation 2.1, where a ratio of 4 gives 12 L h^2). V h is the output layer; it multiplies whether or
    not it is tied. Looking up an embedding multiplies nothing.
    """
    attention = 2 * config.width * (config.width + config.kv_width)
    router = config.width * config.experts if config.experts > 1 else 0
    block = attention + router + config.active_experts * feed_forward_parameters(config)
    return config.layers * block + config.vocab * config.width


def feed_forward_parameters(config: GPTConfig) -> int:
    """The weights of one feed-forward part (a block has one, or E experts): 2 h hidden, and 3 h hidden where gated."""
    return (3 if config.gated else 2) * config.width * config.hidden_width


def parameter_count(config: GPTConfig) -> int:
    """How many numbers `GPT(config).parameters()` holds; tied weights count once."""
    h = config.width
    tables = config.vocab * h + (config.seq * h if config.positions == "learned" else 0)
    norms = (2 * config.layers + 1) * h
    # Query and out add h each, key and value h_kv, an expert h and hidden, or h and 2 hidden. A layer norm has a bias
    # for each weight.
    block = 2 * h + 2 * config.kv_width + config.experts * (h + (2 if config.gated else 1) * config.hidden_width)
    biases = config.layers * block + (norms if config.norm == "layer" else 0) if config.bias else 0
    shared = config.vocab * h if config.tied else 0
    idle = config.layers * (config.experts - config.active_experts) * feed_forward_parameters(config)
    return tables + matmul_parameters(config) + idle + norms + biases - shared


def flops_per_token(config: GPTConfig, causal: bool = False) -> int:
    """FLOPs of forward and backward for one token of a full sequence: 6 N + 12 L h s (PaLM, appendix B).

    The convention: a multiply and an add are two FLOPs; only matrix products count; a backward pass is two products for
    each of the forward pass, hence 6 = 2 + 4. N is `matmul_parameters`: PaLM's N counts all parameters, here the tables
    that are only looked up are left out. In attention, queries times keys and the sum over values are 2 h s each; the
    whole square counts, although a causal kernel can skip half of it, and what a fused kernel computes again in its
    backward pass (queries times keys, 2 L h s) does not. Kaplan's table 1 has 2 L h s where the forward pass here has
    4 L h s. With `causal` only the s (s + 1) / 2 pairs of tokens that see each other count: 6 L h (s + 1). Grouped
    queries save no product here: each query head multiplies its own scores. Rotary turns, norms and gates are no matrix
    products.
    """
    attention = 6 * (config.seq + 1) if causal else 12 * config.seq
    return 6 * matmul_parameters(config) + attention * config.layers * config.width


def block_activation_bytes(config: GPTConfig, batch: int, dtype_bytes: int = 4) -> int:
    """Bytes that autograd keeps for one block, from its forward to its backward pass.

    In numbers per token: the output of two norms, query, the attention's output: 4 h; key and value: 2 h_kv; around
    the GELU: 2 hidden, and 4 hidden in SwiGLU, which keeps both linears' outputs, the SiLU and the product. Beside them
    what the two norms keep (`_norm_bytes`: their inputs, 2 h, among it), a log-sum-exp for each token and head, and
    with rotary positions a cosine and a sine for each place and pair of a head. With h_kv = h and hidden =
    mlp_ratio h that is 8 + 2 mlp_ratio in units of b s h.

    Of experts it depends on how they are run, and is not counted here.

    Raises:
        ValueError: the block has experts.

    Korthikanti's 34 s b h bytes (equation 1, two bytes per number, a ratio of 4) are these 16 b s h numbers and two
    dropout masks of one byte; their 5 a b s^2 bytes for the attention scores are what the fused kernel does away with.
    """
    if config.experts > 1:
        raise ValueError(f"{config.experts} experts: what autograd keeps of them is measured, and not counted here")
    tokens = batch * config.seq
    hidden = (4 if config.gated else 2) * config.hidden_width
    numbers = tokens * (4 * config.width + 2 * config.kv_width + hidden) + 2 * _mask(config, tokens)
    turns = config.seq * config.head_width if config.positions == "rotary" else 0
    log_sum_exp_bytes = tokens * config.heads * max(4, dtype_bytes)  # never below float32
    return dtype_bytes * (numbers + turns) + log_sum_exp_bytes + 2 * _norm_bytes(config, tokens, dtype_bytes)


def activation_bytes(config: GPTConfig, batch: int, dtype_bytes: int = 4, recompute: bool = False) -> int:
    """Bytes that autograd keeps for `loss(GPT(config)(tokens), targets)`: each storage once, parameters left out.

    Beyond the blocks: the tokens and the targets; what the last norm keeps, and its output; the log-probabilities (V
    per token); and the loss's total weight, one number. It is exact for `batch` full sequences, inputs and targets in
    storages of their own, the CPU's kernels, and all weights in one dtype. A GPU's kernels differ in the small terms,
    keep a dropout mask in one byte where the CPU keeps `dtype_bytes`, and no second copy in an RMS norm.

    With `recompute` each block runs under `torch.utils.checkpoint` and keeps its input alone. One block at a time is
    then whole again in the backward pass, after the head's share is freed: `block_activation_bytes` come on top.
    """
    tokens = batch * config.seq
    head = tokens * (config.width + config.vocab) + 1 + _mask(config, tokens)
    ends = dtype_bytes * head + _norm_bytes(config, tokens, dtype_bytes) + 2 * TOKEN_BYTES * tokens
    block = dtype_bytes * tokens * config.width if recompute else block_activation_bytes(config, batch, dtype_bytes)
    return config.layers * block + ends


def _mask(config: GPTConfig, tokens: int) -> int:
    return tokens * config.width if config.dropout else 0


def _norm_bytes(config: GPTConfig, tokens: int, dtype_bytes: int) -> int:
    """Of a layer norm the input, mean and deviation; of an RMS norm the input and the normalized one, never below 4."""
    if config.norm == "layer":
        return dtype_bytes * tokens * (config.width + 2)
    return max(4, dtype_bytes) * tokens * (2 * config.width + 1)  # the CPU composes it, in float32 at least
