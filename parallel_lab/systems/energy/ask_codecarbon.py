"""What codecarbon reports for some seconds of work, as JSON: `python -m parallel_lab.systems.energy.ask_codecarbon 1`.

It runs offline, so it asks no server where it is, and it writes no file.
"""

import json
import sys
from importlib.metadata import version

from codecarbon import OfflineEmissionsTracker

from parallel_lab.systems.energy.carbon import J_PER_KWH
from parallel_lab.systems.energy.work import busy


def report(seconds: float) -> dict:
    """Joules by part, and of each part how its watts came about."""
    tracker = OfflineEmissionsTracker(
        country_iso_code="FRA", output_methods=[], log_level="critical", measure_power_secs=1, allow_multiple_runs=True
    )
    tracker.start()
    busy(seconds)
    tracker.stop()
    seen = tracker.final_emissions_data
    joules = {"cpu": seen.cpu_energy, "gpu": seen.gpu_energy, "ram": seen.ram_energy}
    how = {type(each).__name__.lower(): _how(each) for each in tracker._hardware}
    return {
        "version": version("codecarbon"),
        "seconds": seen.duration,
        "joules": {part: value * J_PER_KWH for part, value in joules.items()},
        "how": how | {"ram watts": seen.ram_power, "pue": seen.pue, "g CO2": seen.emissions * 1e3},
    }


def _how(part: object) -> str:
    """Read, or by which model: codecarbon has no name for it in public."""
    return getattr(part, "_mode", {"RAM": "from its size", "GPU": "nvml"}.get(type(part).__name__, "unknown"))


if __name__ == "__main__":
    print(json.dumps(report(float(sys.argv[1]))))
