"""Parallel Lab: parallel training of large language models, on real processes, seen and graded.

The face is lazy (SPEC 1): importing `parallel_lab` loads nothing until a name is used, so that a rank never loads
matplotlib or widgets.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["collectives", "course", "model", "pipeline", "plan", "runtime", "simulate", "trace", "view"],
    submod_attrs={
        "course": ["ask", "check", "quiz"],
        "runtime": ["Deadlock", "Delay", "Drop", "Kill", "Link", "RankFailed", "Run", "launch"],
        "trace": ["progress", "span"],
        "view": ["draw"],
    },
)
