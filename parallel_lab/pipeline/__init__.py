"""Pipeline schedules as plans, the messages between their ranks, and where to cut a model. No torch."""

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
