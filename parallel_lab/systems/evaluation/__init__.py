"""How good a model is, and how well its training uses the machines, over ranks."""

from parallel_lab.systems.evaluation import (
    bleu,
    calibration,
    chrf,
    classification,
    contamination,
    last_batch,
    perplexity,
    ranking,
    rouge,
    significance,
    speed,
)
from parallel_lab.systems.evaluation.calibration import expected_calibration_error, reliability, temperature
from parallel_lab.systems.evaluation.classification import accuracy, confusion, f1, precision, recall
from parallel_lab.systems.evaluation.exchange import gather, merge
from parallel_lab.systems.evaluation.perplexity import Likelihood, bits_per_byte, likelihood, loss_scale
from parallel_lab.systems.evaluation.ranking import auc, auc_over_ranks, histogram_auc, roc, roc_over_ranks
from parallel_lab.systems.evaluation.significance import mcnemar, paired_bootstrap, paired_difference, permutation

__all__ = [
    "Likelihood",
    "accuracy",
    "auc",
    "auc_over_ranks",
    "bits_per_byte",
    "bleu",
    "calibration",
    "chrf",
    "classification",
    "confusion",
    "contamination",
    "expected_calibration_error",
    "f1",
    "gather",
    "histogram_auc",
    "last_batch",
    "likelihood",
    "loss_scale",
    "mcnemar",
    "merge",
    "paired_bootstrap",
    "paired_difference",
    "permutation",
    "perplexity",
    "precision",
    "ranking",
    "recall",
    "reliability",
    "roc",
    "roc_over_ranks",
    "rouge",
    "significance",
    "speed",
    "temperature",
]
