"""Serving a language model in parallel: prefill and decode, the cache of keys and values, batches, ranks."""

from parallel_lab.systems.serving import formulas, small_model
from parallel_lab.systems.serving.batching import Counted, Greedy, Iteration, Log, Request, serve
from parallel_lab.systems.serving.cache import Cache
from parallel_lab.systems.serving.decoder import Decoder, generate, sampled
from parallel_lab.systems.serving.disaggregated import serve_apart
from parallel_lab.systems.serving.small_model import SmallModel, load_small_model

__all__ = [
    "Cache",
    "Counted",
    "Decoder",
    "Greedy",
    "Iteration",
    "Log",
    "Request",
    "SmallModel",
    "formulas",
    "generate",
    "load_small_model",
    "sampled",
    "serve",
    "serve_apart",
    "small_model",
]
