"""Tensor parallelism: every matrix of a model cut over the ranks of a group, which read the same batch."""

from parallel_lab.tensor_parallel import formulas, matmul, matmul_formulas, matmul_plan, overlap
from parallel_lab.tensor_parallel.apply import plan, tensor_parallel
from parallel_lab.tensor_parallel.linear import ColumnLinear, RowLinear
from parallel_lab.tensor_parallel.sequence import sum_replicated_gradients
from parallel_lab.tensor_parallel.state import full_state_dict, load_full_state_dict
from parallel_lab.tensor_parallel.vocab import VocabEmbedding, VocabHead, vocab_cross_entropy

__all__ = [
    "ColumnLinear",
    "RowLinear",
    "VocabEmbedding",
    "VocabHead",
    "formulas",
    "full_state_dict",
    "load_full_state_dict",
    "matmul",
    "matmul_formulas",
    "matmul_plan",
    "overlap",
    "plan",
    "sum_replicated_gradients",
    "tensor_parallel",
    "vocab_cross_entropy",
]
