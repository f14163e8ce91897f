"""What happened, real or simulated. `trace.memory` needs torch and is imported by name."""

from parallel_lab.trace.record import Recorder, install, progress, recorder, span, tag
from parallel_lab.trace.span import Sample, Span, Trace

__all__ = ["Recorder", "Sample", "Span", "Trace", "install", "progress", "recorder", "span", "tag"]
