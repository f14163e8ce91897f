# For type checkers and editors: the names of `__init__.py`, those that are loaded when first used among them.
from .dualpipe_v import dualpipe_v
from .execute import forget, step
from .gpipe import gpipe
from .interleaved import interleaved
from .looped_bfs import looped_bfs
from .messages import with_messages
from .needs import repeated, with_needs
from .one_f_one_b import one_f_one_b
from .partition import partition
from .placement import placement, stages_of
from .stage import Stage
from .tied import sum_tied, tie
from .zb_v import zb_v
from .zero_bubble import zb_h1, zb_h2

__all__ = [
    "Stage",
    "dualpipe_v",
    "forget",
    "gpipe",
    "interleaved",
    "looped_bfs",
    "one_f_one_b",
    "partition",
    "placement",
    "repeated",
    "stages_of",
    "step",
    "sum_tied",
    "tie",
    "with_messages",
    "with_needs",
    "zb_h1",
    "zb_h2",
    "zb_v",
]
