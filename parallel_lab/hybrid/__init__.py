"""All axes at once: a GPT cut into stages, by tensors, contexts and experts, and over data."""

import lazy_loader

_LAZY = {
    "apply": ["parallelize"],
    "checkpoint": ["Progress", "describe", "latest", "load", "save"],
    "layout": ["Layout"],
    "norm": ["clip", "global_norm"],
    "parallel": ["Parallel"],
    "parameters": ["Held", "answered", "held", "refresh"],
    "step": ["Outcome", "train_step"],
}
__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs=_LAZY)
