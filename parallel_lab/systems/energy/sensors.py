"""Energy, read where the machine gives it: RAPL of the processor, NVML of the GPU. Where there is none, it says so.

A sensor is one of two kinds. A *counter* counts joules since some moment (RAPL's `energy_uj`; NVML's total energy, from
Volta on): two readings and a difference leave nothing out in between, as long as the counter begins anew at most once.
A *gauge* shows watts (NVML's power: a mean over a second on most GPUs since Ampere, a momentary value on the A100 and
older ones): it must be sampled, and what lies between two samples is guessed.

RAPL's files have been readable by root alone since 2020 (CVE-2020-8694: power tells secrets); virtual machines mostly
hide them. NVML counts one board with its memory, and neither the host, nor the fans, nor the network.
"""

import ctypes
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, Self

POWERCAP = Path("/sys/class/powercap")
NVML_LIBRARY = "libnvidia-ml.so.1"


class Sensor(Protocol):
    """Something that counts joules."""

    @property
    def name(self) -> str:
        """What it measures, for people."""
        ...

    def joules(self) -> float:
        """Joules since some moment."""
        ...

    def between(self, before: float, after: float) -> float:
        """Joules from one reading to a later one."""
        ...


@dataclass(frozen=True)
class Rapl:
    """A counter of Linux' powercap tree: a processor package, its cores, or its memory.

    Attributes:
        folder: with `energy_uj` and `max_energy_range_uj`.
        name: what the tree calls it.
    """

    folder: Path
    name: str

    def joules(self) -> float:
        """Joules since some moment, modulo the counter's range."""
        return int((self.folder / "energy_uj").read_text()) / 1e6

    def between(self, before: float, after: float) -> float:
        """Joules from one reading to the next; the counter may have begun anew once in between."""
        if after >= before:
            return after - before
        return after + int((self.folder / "max_energy_range_uj").read_text()) / 1e6 - before


def rapl(root: Path = POWERCAP) -> tuple[list[Rapl], str]:
    """The processor packages that can be read, and in words why there are not more.

    Only whole packages are returned. Cores stand inside them, and adding both would count joules twice; so would
    `psys`, which stands beside the packages and holds them. Memory's own counter, where there is one, is left out.
    """
    zones = [each for each in sorted(root.glob("intel-rapl:*")) if each.name.count(":") == 1]
    folders = [each for each in zones if (each / "name").read_text().strip() != "psys"]
    if not folders:
        return [], f"no RAPL: {root} has no intel-rapl"
    found = []
    for folder in folders:
        try:
            int((folder / "energy_uj").read_text())
        except (OSError, ValueError) as error:
            return [], f"RAPL is there and cannot be read: {type(error).__name__} at {folder / 'energy_uj'}"
        found.append(Rapl(folder, (folder / "name").read_text().strip()))
    return found, f"RAPL: {len(found)} packages"


class Nvml:
    """One GPU as NVML, the library behind nvidia-smi, sees it. It reads and sets nothing.

    NVML numbers all boards of the machine, whatever CUDA_VISIBLE_DEVICES says; a UUID names one for certain.

    Args:
        library: NVML, initialized.
        handle: of the board.
        name: for people.
    """

    def __init__(self, library: Any, handle: ctypes.c_void_p, name: str) -> None:
        self.library, self.handle, self.name = library, handle, name

    def _ask(self, function: str, kind: type) -> Any:
        value = kind()
        _checked(self.library, getattr(self.library, function)(self.handle, ctypes.byref(value)), function)
        return value.value

    def joules(self) -> float:
        """Joules since the driver was loaded."""
        return self._ask("nvmlDeviceGetTotalEnergyConsumption", ctypes.c_ulonglong) / 1e3

    def between(self, before: float, after: float) -> float:
        """Joules from one reading to the next."""
        return after - before

    def power_w(self) -> float:
        """What it draws: momentary or the mean of a second, depending on the GPU."""
        return self._ask("nvmlDeviceGetPowerUsage", ctypes.c_uint) / 1e3

    def limit_w(self) -> float:
        """The power cap that holds now."""
        return self._ask("nvmlDeviceGetEnforcedPowerLimit", ctypes.c_uint) / 1e3


def nvml(name: str = NVML_LIBRARY) -> tuple[list[Nvml], str]:
    """The GPUs that NVML sees, and in words why there are none."""
    try:
        library = ctypes.CDLL(name)
    except OSError:
        return [], f"no NVML: {name} is not there"
    if status := library.nvmlInit_v2():
        return [], f"NVML is there and does not start: status {status}"
    count = ctypes.c_uint()
    _checked(library, library.nvmlDeviceGetCount_v2(ctypes.byref(count)), "nvmlDeviceGetCount_v2")
    found = []
    for index in range(count.value):
        handle = ctypes.c_void_p()
        _checked(library, library.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(handle)), "a handle")
        found.append(Nvml(library, handle, f"GPU {index} {_uuid(library, handle)}"))
    return found, f"NVML: {len(found)} GPUs"


def _uuid(library: Any, handle: ctypes.c_void_p) -> str:
    text = ctypes.create_string_buffer(96)
    _checked(library, library.nvmlDeviceGetUUID(handle, text, 96), "nvmlDeviceGetUUID")
    return text.value.decode()


def _checked(library: Any, status: int, what: str) -> None:
    if status:
        library.nvmlErrorString.restype = ctypes.c_char_p
        raise OSError(f"NVML: {what}: {library.nvmlErrorString(status).decode()}")


@dataclass
class Meter:
    """Joules of each sensor while a `with` block runs.

    Attributes:
        sensors: what to read.
        joules: of each sensor, by name, once the block is over; empty where there is no sensor.
        seconds: how long the block took.
    """

    sensors: Sequence[Sensor]
    joules: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0

    def __enter__(self) -> Self:
        self._before, self._start = [each.joules() for each in self.sensors], time.perf_counter()
        return self

    def __exit__(self, *exc: object) -> None:
        self.seconds = time.perf_counter() - self._start
        after = [each.joules() for each in self.sensors]
        readings = zip(self.sensors, self._before, after, strict=True)
        self.joules = {each.name: each.between(one, other) for each, one, other in readings}

    @property
    def measured(self) -> bool:
        """Whether a sensor was read; if not, any figure in joules is a model's."""
        return bool(self.joules)

    def bounds_j(self, idle_w: float, peak_w: float) -> tuple[float, float]:
        """What a machine between idle and peak may have taken: all that the clock alone can say."""
        return idle_w * self.seconds, peak_w * self.seconds


def found() -> tuple[list[Sensor], list[str]]:
    """All sensors of this machine, and what was looked for with what came of it."""
    (cpu, cpu_said), (gpu, gpu_said) = rapl(), nvml()
    return [*cpu, *gpu], [cpu_said, gpu_said]
