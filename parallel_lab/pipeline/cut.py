"""What crosses between two stages, as a name. No torch."""

from typing import NamedTuple

FORWARD, BACKWARD = "forward", "backward"


class Cut(NamedTuple):
    """Which way it crosses, after which stage, and of which microbatch of the step."""

    way: str
    stage: int
    mb: int
