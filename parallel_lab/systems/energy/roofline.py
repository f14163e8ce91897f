"""The roofline of energy: FLOPs and bytes cost energy one beside the other, and time costs static power.

Choi, Bedard, Fowler and Vuduc 2013, "A roofline model of energy". In time the slower of arithmetic and memory hides the
other; in energy nothing hides:

    energy = FLOPs ξ_F + bytes ξ_B + P_0 T        T = max(FLOPs / F, bytes / W)

At ξ_B / ξ_F FLOPs per byte both cost the same: the balance of energy. It need not be the ridge F / W of time. With
static power, even a kernel at its peak pays P_0 for every second, so the best joules per FLOP is ξ_F + P_0 / F.
"""

from dataclasses import dataclass

from parallel_lab.simulate import Roofline


@dataclass(frozen=True)
class EnergyRoofline:
    """What a kernel costs in joules, beside its time.

    Attributes:
        time: the roofline of time of the same machine.
        flop_j: ξ_F, of a FLOP above static power.
        byte_j: ξ_B, of a byte from memory above static power.
        static_w: P_0.
    """

    time: Roofline
    flop_j: float
    byte_j: float
    static_w: float

    @property
    def balance(self) -> float:
        """FLOPs per byte at which arithmetic and traffic cost the same."""
        return self.byte_j / self.flop_j

    def joules(self, flops: float, moved_bytes: float) -> float:
        """All of a kernel's energy."""
        return flops * self.flop_j + moved_bytes * self.byte_j + self.static_w * self.time.time_s(flops, moved_bytes)

    def flops_per_j(self, intensity: float) -> float:
        """FLOPs per joule at an arithmetic intensity, in FLOPs per byte: the curve of the roofline of energy."""
        return intensity / self.joules(intensity, 1.0)

    def power_w(self, intensity: float) -> float:
        """The mean power at an intensity: highest at the ridge, where both units work all the time."""
        return self.joules(intensity, 1.0) / self.time.time_s(intensity, 1.0)

    @classmethod
    def of(cls, time: Roofline, peak_w: float, static_w: float, balance: float) -> "EnergyRoofline":
        """The machine that draws `peak_w` at its ridge, with this static power and balance of energy.

        At the ridge a second does F FLOPs and moves W bytes: peak_w = static_w + ξ_F (F + balance W).

        Raises:
            ValueError: the peak is not above the static power.
        """
        if peak_w <= static_w:
            raise ValueError(f"peak_w={peak_w} is not above static_w={static_w}")
        flop_j = (peak_w - static_w) / (time.flops_per_s + balance * time.bytes_per_s)
        return cls(time, flop_j, balance * flop_j, static_w)
