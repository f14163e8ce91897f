"""A case: one run of the learner's function, as data. Ranks import this module."""

from dataclasses import dataclass
from typing import Any

WORLDS = (1, 2, 3, 4)
SHOWN = ("shape", "root", "servers", "counts", "every", "bound")  # settings that messages name


@dataclass(frozen=True)
class Case:
    """One run: on how many ranks, with which settings. Equal cases are one run.

    Attributes:
        ranks: how many.
        settings: pairs of name and value, for the inputs, the driver and the expectation alike; `case["shape"]`.
        defaults: the settings of the exercise, where the case says nothing else.
        changed: whether the first message or collective result that the last rank gets arrives changed by one.
    """

    ranks: int
    settings: tuple[tuple[str, Any], ...] = ()
    changed: bool = False
    defaults: tuple[tuple[str, Any], ...] = ()

    def __getitem__(self, name: str) -> Any:
        return dict(self.defaults + self.settings)[name]

    def get(self, name: str, default: Any = None) -> Any:
        """What `name` is set to, or `default`."""
        return dict(self.defaults + self.settings).get(name, default)

    @property
    def at(self) -> str:
        """`at 3 ranks, shape (7,)`, to begin a message with."""
        named = [f", {name} {value}" for name, value in self.settings if name in SHOWN]
        return f"at {self.ranks} rank" + "s" * (self.ranks > 1) + "".join(named)
