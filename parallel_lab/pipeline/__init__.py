"""Pipeline schedules as plans. No torch."""

from parallel_lab.pipeline.gpipe import gpipe
from parallel_lab.pipeline.interleaved import interleaved
from parallel_lab.pipeline.needs import with_needs
from parallel_lab.pipeline.one_f_one_b import one_f_one_b

__all__ = ["gpipe", "interleaved", "one_f_one_b", "with_needs"]
