"""Where the time of a step goes, what would make it shorter, and by how much."""

from parallel_lab.performance.breakdown import PARTS, Breakdown
from parallel_lab.performance.explain import Explanation, explain, verdict
from parallel_lab.performance.replay import Replay, replay
from parallel_lab.performance.suggestions import Suggestion
from parallel_lab.performance.torch_profile import profile_trace, read_profile

__all__ = [
    "PARTS",
    "Breakdown",
    "Explanation",
    "Replay",
    "Suggestion",
    "explain",
    "profile_trace",
    "read_profile",
    "replay",
    "verdict",
]
