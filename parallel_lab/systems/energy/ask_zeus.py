"""What zeus reports for some seconds of work, as JSON: `python -m parallel_lab.systems.energy.ask_zeus 1`.

It is a program of its own, since zeus looks for three vendors' libraries when it is loaded, and prints what it misses.
"""

import json
import sys
import warnings

from zeus import __version__
from zeus.monitor import ZeusMonitor

from parallel_lab.systems.energy.work import busy


def report(seconds: float) -> dict:
    """Joules by part; a part that has no sensor is absent, or None."""
    monitor = ZeusMonitor(approx_instant_energy=False)
    monitor.begin_window("work")
    busy(seconds)
    seen = monitor.end_window("work")
    joules = {f"gpu {index}": value for index, value in seen.gpu_energy.items()}
    joules |= {f"cpu {index}": value for index, value in (seen.cpu_energy or {}).items()}
    return {"version": __version__, "seconds": seen.time, "joules": joules, "how": {}}


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    print(json.dumps(report(float(sys.argv[1]))))
