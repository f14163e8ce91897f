"""From the time of a step to days, kilowatt-hours, tonnes of CO2 and dollars of a whole training: trees of terms.

    run = Run(model("llama3-70b"), cluster("h100-ib", gpus=1024), batch=1024, step_s=20.0, tokens=15e12)
    run.days.tree(); run.kwh.tree(); run.usd.tree()

    steps = tokens / (batch x s)       hours = steps x time of a step / goodput
    kWh = GPUs x hours x watts / 1000 x PUE       t of CO2 = kWh x kg per kWh / 1000       $ = GPUs x hours x price

`goodput` is the share of the calendar that is not lost to failures, restarts and checkpoints; Llama 3 had more than 0.9
(Dubey et al. 2024, section 3.3.4). Watts are the most that an accelerator draws (TDP), as in the reports of Llama: a
server adds its host, and a chip that waits draws less. So energy here is an estimate like theirs, and no measurement.

Sources: Touvron et al. 2023, "LLaMA", table 15 (watts x hours x a PUE of 1.1, 0.385 kg per kWh), which `kwh` and
`tonnes` of the energy chapter compute; the cluster's own numbers where it has them.
"""

from dataclasses import dataclass

from parallel_lab.model.budget import SECONDS_PER_DAY, SECONDS_PER_HOUR
from parallel_lab.model.config import GPTConfig
from parallel_lab.planner.clusters import Cluster
from parallel_lab.planner.terms import Term
from parallel_lab.systems.energy.carbon import kwh, tonnes


@dataclass(frozen=True)
class Run:
    """A training to its end.

    Attributes:
        shape: of the model; `seq` is the length of its sequences.
        cluster: that it has to itself.
        batch: sequences of a step, over all ranks.
        step_s: seconds of a step.
        tokens: of the whole training.
        goodput: share of the time that counts.

    Raises:
        ValueError: a number is not positive, or the goodput is above 1.
    """

    shape: GPTConfig
    cluster: Cluster
    batch: int
    step_s: float
    tokens: float
    goodput: float = 1.0

    def __post_init__(self) -> None:
        for name in ("batch", "step_s", "tokens", "goodput"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)}: expected more than 0")
        if self.goodput > 1:
            raise ValueError(f"goodput={self.goodput}: expected a share, at most 1")

    @property
    def steps(self) -> float:
        """How many there are."""
        return self.tokens / (self.batch * self.shape.seq)

    @property
    def days(self) -> Term:
        """Of the calendar."""
        parts = (
            Term("steps", self.steps, "", "tokens / (batch x s)"),
            Term("step", self.step_s, "s", "time of a step"),
            Term("goodput", self.goodput, "share", "not lost to failures, restarts, checkpoints"),
        )
        value = self.steps * self.step_s / self.goodput / SECONDS_PER_DAY
        return Term("days", value, "days", "steps x step / goodput", parts=parts, rule="other")

    @property
    def gpu_hours(self) -> float:
        """Hours of one accelerator, all together."""
        return self.days.value * SECONDS_PER_DAY / SECONDS_PER_HOUR * self.cluster.gpus

    @property
    def kwh(self) -> Term:
        """Energy, the building's included."""
        chip = self.cluster.accelerator
        parts = (
            Term("GPU hours", self.gpu_hours, "h", f"{self.cluster.gpus:,} x {self.days.text}"),
            Term("watts", chip.watts, "W", "at most (TDP)", chip.source),
            Term("PUE", self.cluster.pue, "", "power of the building over that of its computers"),
        )
        value = kwh(self.gpu_hours, chip.watts, self.cluster.pue)
        return Term("energy", value, "kWh", "GPU hours x watts / 1000 x PUE", parts=parts, rule="other")

    @property
    def tco2(self) -> Term:
        """Carbon of that energy."""
        value, each = tonnes(self.kwh.value, self.cluster.kg_per_kwh), self.cluster.kg_per_kwh
        parts = (self.kwh, Term("intensity", each, "kg per kWh", "of the grid"))
        return Term("carbon", value, "t CO2", "energy x intensity / 1000", parts=parts, rule="other")

    @property
    def usd(self) -> Term:
        """Price of the hours."""
        each = Term("price", self.cluster.usd_per_gpu_hour, "USD per GPU hour", "", self.cluster.source)
        hours = Term("GPU hours", self.gpu_hours, "h")
        value = self.gpu_hours * each.value
        return Term("cost", value, "USD", "GPU hours x price", parts=(hours, each), rule="other")
