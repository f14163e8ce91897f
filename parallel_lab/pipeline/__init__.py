"""Pipeline parallelism: schedules as plans, the messages between ranks, where to cut a model, and what carries it out.

The schedules need no torch. What runs them is lazy: torch is loaded when `step` or `Stage` is first used.
"""

import lazy_loader

from parallel_lab.pipeline.dualpipe_v import dualpipe_v
from parallel_lab.pipeline.gpipe import gpipe
from parallel_lab.pipeline.interleaved import interleaved
from parallel_lab.pipeline.looped_bfs import looped_bfs
from parallel_lab.pipeline.messages import with_messages
from parallel_lab.pipeline.needs import repeated, with_needs
from parallel_lab.pipeline.one_f_one_b import one_f_one_b
from parallel_lab.pipeline.partition import partition
from parallel_lab.pipeline.placement import placement, stages_of
from parallel_lab.pipeline.zb_v import zb_v
from parallel_lab.pipeline.zero_bubble import zb_h1, zb_h2

_LAZY = {"execute": ["forget", "step"], "stage": ["Stage"], "tied": ["sum_tied", "tie"]}
__getattr__, *_ = lazy_loader.attach(__name__, submod_attrs=_LAZY)

__all__ = [
    "dualpipe_v",
    "gpipe",
    "interleaved",
    "looped_bfs",
    "one_f_one_b",
    "partition",
    "placement",
    "repeated",
    "stages_of",
    "with_messages",
    "with_needs",
    "zb_h1",
    "zb_h2",
    "zb_v",
]


def __dir__() -> list[str]:
    return sorted([*__all__, *(name for names in _LAZY.values() for name in names)])
