"""Failures in virtual time: when they come, and what a run's time went into."""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass


@dataclass
class Killed:
    """What the time of a run went into, in one unit: seconds, or steps."""

    useful: float = 0.0  # work that was kept
    lost: float = 0.0  # work that had to be done again
    saving: float = 0.0
    restarting: float = 0.0
    failures: int = 0

    @property
    def wall(self) -> float:
        """All of it."""
        return self.useful + self.lost + self.saving + self.restarting

    @property
    def efficiency(self) -> float:
        """The share that was useful."""
        return self.useful / self.wall


def dice(mtbf: float, shape: float = 1.0, seed: int = 0) -> Callable[[], float]:
    """Draws times to the next failure with this mean: Weibull's, which is exponential at a shape of 1."""
    if not (mtbf > 0 and shape > 0):
        raise ValueError(f"mtbf={mtbf}, shape={shape}: expected more than 0")
    generator, scale = random.Random(seed), mtbf / math.gamma(1 + 1 / shape)
    return lambda: generator.weibullvariate(scale, shape)
