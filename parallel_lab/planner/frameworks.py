"""Frameworks for training large models: what each can cut, when one picks it, and who can run a given scheme.

The table is `frameworks.yaml`, each row with its source and year.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

from parallel_lab.planner.scheme import Scheme


@dataclass(frozen=True)
class Framework:
    """What one framework can do.

    Attributes:
        since: The year of its paper, or of its first release.
        zero: The stages of ZeRO that it has; 0 is plain data parallelism.
        axes: Those of pp, tp, cp and ep that it has.
        pick: When one picks it.
        zero_with_pp: The highest stage beside pp > 1.
        zero_with_tp: The highest stage beside tp > 1.
        searches: Whether it looks for the layout itself.
    """

    name: str
    since: int
    runs_on: str
    zero: tuple[int, ...]
    axes: tuple[str, ...]
    pick: str
    source: str
    zero_with_pp: int = 0
    zero_with_tp: int = 3
    searches: bool = False

    def lacks(self, scheme: Scheme) -> list[str]:
        """What `scheme` asks for and this framework has not, by its own documentation; empty where it can run it."""
        found = [axis for axis in ("pp", "tp", "cp", "ep") if getattr(scheme, axis) > 1 and axis not in self.axes]
        stage = f"ZeRO-{scheme.zero}" if scheme.zero else "plain data parallelism"
        if scheme.dp > 1 and scheme.zero not in self.zero:
            found.append(stage)
        elif scheme.pp > 1 and scheme.zero > self.zero_with_pp and "pp" in self.axes:
            found.append(f"{stage} beside pp")
        elif scheme.tp > 1 and scheme.zero > self.zero_with_tp:
            found.append(f"{stage} beside tp")
        return found


@cache
def frameworks() -> tuple[Framework, ...]:
    """All rows of the table."""
    rows = yaml.safe_load((Path(__file__).parent / "frameworks.yaml").read_text(encoding="utf-8"))
    return tuple(Framework(**row | {"zero": tuple(row["zero"]), "axes": tuple(row["axes"])}) for row in rows)
