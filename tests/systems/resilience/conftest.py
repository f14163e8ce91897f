"""Lets the tests of this folder import what they share, and the small server's helpers."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "parameter_server")]
