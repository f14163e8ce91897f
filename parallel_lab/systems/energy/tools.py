"""What two tools print about this machine: zeus, which measures or says nothing, and codecarbon, which always answers.

Both are asked in a process of their own, without a network and in a temporary folder. They are an extra of the
installation; where one is not installed, the report says so.
"""

import json
import subprocess
import sys
from dataclasses import dataclass, field
from importlib.util import find_spec
from tempfile import TemporaryDirectory
from typing import Any

TOOLS = ("zeus", "codecarbon")
READ = ("nvml", "intel_rapl", "intel_power_gadget", "powermetrics")  # codecarbon's names for what it reads


@dataclass(frozen=True)
class Report:
    """What a tool said about some seconds of work.

    Attributes:
        tool: its name.
        version: its version; empty where it did not answer.
        seconds: how long it watched.
        joules: by part of the machine.
        how: how it came to them, as far as it says.
        said: why there is no answer, in words.
    """

    tool: str
    version: str = ""
    seconds: float = 0.0
    joules: dict[str, float] = field(default_factory=dict)
    how: dict[str, Any] = field(default_factory=dict)
    said: str = ""

    @property
    def total_j(self) -> float:
        """All parts."""
        return sum(self.joules.values())

    def share(self, part: str) -> float:
        """The share of a part in what the tool reports."""
        return self.joules.get(part, 0.0) / self.total_j if self.total_j else 0.0

    @property
    def modeled(self) -> list[str]:
        """The parts whose watts come from a table or a formula of the tool, and from no sensor."""
        return [part for part, joules in self.joules.items() if joules and self.how.get(part, READ[0]) not in READ]


def ask(tool: str, seconds: float = 1.0, timeout: float = 120.0) -> Report:
    """Runs `seconds` of work under a tool and returns what it reports.

    Raises:
        ValueError: the tool is neither zeus nor codecarbon.
    """
    if tool not in TOOLS:
        raise ValueError(f"ask({tool!r}): expected one of {', '.join(TOOLS)}")
    if find_spec(tool) is None:
        return Report(tool, said=f"{tool} is not installed: `make energy` installs it")
    module = f"parallel_lab.systems.energy.ask_{tool}"
    with TemporaryDirectory() as folder:
        command = [sys.executable, "-m", module, str(seconds)]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=timeout, check=False)
    if done.returncode:
        return Report(tool, said=f"{tool} ended with {done.returncode}: {done.stderr.strip().splitlines()[-1:]}")
    return Report(tool, **json.loads(done.stdout.strip().splitlines()[-1]))
