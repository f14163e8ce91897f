# The one list of names: lazy_loader reads it at run time, type checkers and editors before.
from .config import GPTConfig
from .data import Batch, Batches, shard_sizes, share, text, text_batches, tokenize
from .digits import digit_batches, digit_images
from .experts import MixtureOfExperts
from .feed_forward import FeedForward
from .formulas import activation_bytes, block_activation_bytes, flops_per_token, matmul_parameters, parameter_count
from .gpt import GPT, Attention, Block, Embedding, Head, causal_attention, loss
from .mlp import MLP
from .reference import Reference, build, train
from .rotary import rotate

__all__ = [
    "GPT",
    "MLP",
    "Attention",
    "Batch",
    "Batches",
    "Block",
    "Embedding",
    "FeedForward",
    "GPTConfig",
    "Head",
    "MixtureOfExperts",
    "Reference",
    "activation_bytes",
    "block_activation_bytes",
    "build",
    "causal_attention",
    "digit_batches",
    "digit_images",
    "flops_per_token",
    "loss",
    "matmul_parameters",
    "parameter_count",
    "rotate",
    "shard_sizes",
    "share",
    "text",
    "text_batches",
    "tokenize",
    "train",
]
