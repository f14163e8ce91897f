"""How good a model is, and how well its training uses the machines, over ranks."""

from parallel_lab.systems.evaluation import classification, perplexity, ranking
from parallel_lab.systems.evaluation.classification import accuracy, confusion, f1, precision, recall
from parallel_lab.systems.evaluation.exchange import gather, merge
from parallel_lab.systems.evaluation.perplexity import Likelihood, bits_per_byte, likelihood, loss_scale
from parallel_lab.systems.evaluation.ranking import auc, auc_over_ranks, histogram_auc, roc, roc_over_ranks

__all__ = [
    "Likelihood",
    "accuracy",
    "auc",
    "auc_over_ranks",
    "bits_per_byte",
    "classification",
    "confusion",
    "f1",
    "gather",
    "histogram_auc",
    "likelihood",
    "loss_scale",
    "merge",
    "perplexity",
    "precision",
    "ranking",
    "recall",
    "roc",
    "roc_over_ranks",
]
