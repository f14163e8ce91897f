"""What serving holds, reads and sends, in closed form; the tests hold each against a recorded run.

n ranks of a tensor-parallel group, b sequences of a batch, h width, L layers, h_kv the width of all key-value heads,
V the vocabulary, e bytes a number. Bytes are those that one rank sends, with built-in collectives counted as rings.

Sources: Pope et al. 2023, "Efficiently scaling Transformer inference"; Kwon et al. 2023, "PagedAttention".
"""

from collections.abc import Iterable

from parallel_lab.model.budget import Shape
from parallel_lab.model.config import GPTConfig
from parallel_lab.network import Link, price
from parallel_lab.simulate import Decoding, Roofline


def cache_bytes_per_token(config: GPTConfig, number_bytes: float = 4, n: int = 1) -> float:
    """Keys and values of one token of one sequence on a rank: 2 L h_kv e / n, with at least one whole head a rank."""
    heads = config.kv_heads or config.heads
    return 2 * config.layers * config.head_width * max(1, heads // n) * number_bytes


def decode_calls(config: GPTConfig) -> int:
    """The sums of one decode step on cut weights: embedding, and two a block."""
    return 2 * config.layers + 1


def decode_bytes(config: GPTConfig, n: int, batch: int, number_bytes: int = 4) -> float:
    """What a rank sends in one decode step: (2 L + 1) sums of b h numbers, and a gather of its best b tokens."""
    total = 2 * (n - 1) / n * decode_calls(config) * batch * config.width * number_bytes
    return total + (n - 1) * batch * 2 * max(4, number_bytes)


def decode_step_s(shape: Shape, gpu: Roofline, n: int, batch: int, context: int, link: Link) -> tuple[float, float]:
    """Seconds of a decode step on n GPUs in 16 bits: reading 1/n of weights and caches, and the sums between them.

    The sums are priced as rings. Libraries choose better for messages as small as these, so the second is an upper
    bound of the sort; its latency does not go away.
    """
    model = Decoding(shape.matmul_parameters / n, cache_bytes_per_token(shape, 2, n))
    sums_s = price("all_reduce", n, batch * shape.width * 2).seconds(link) if n > 1 else 0.0
    return model.step_s(gpu, batch, context), decode_calls(shape) * sums_s


def prefill_s(shape: Shape, gpu: Roofline, tokens: int, n: int = 1) -> float:
    """Seconds to read so many prompt tokens on n GPUs: 2 N FLOPs a token, or one reading of the weights."""
    parameters = shape.matmul_parameters / n
    return gpu.time_s(2 * parameters * tokens, 2 * parameters)


def reserved_tokens(lengths: Iterable[int], longest: int) -> int:
    """Tokens of cache that are taken where each sequence reserves a slot of `longest`."""
    return sum(longest for _ in lengths)


def paged_tokens(lengths: Iterable[int], block: int) -> int:
    """The same where the cache is handed out in blocks of `block` tokens: less than a block a sequence is empty."""
    return sum(-(-length // block) * block for length in lengths)
