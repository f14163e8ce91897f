"""Numbers with units that people read: bytes in powers of 1000, times from nanoseconds to days; and tables of them."""

from collections.abc import Mapping, Sequence

_BYTES = ((1e15, "PB"), (1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))
_TIMES = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))
_EXACT_BELOW = 10_000  # up to here each byte counts: a learner compares it with a formula by eye
_WRITTEN_LIMIT = 999.5  # from here on three digits round up to the next unit


def _three_digits(value: float) -> str:
    """`value` (below 1000 in size) with three significant digits and no exponent."""
    size = abs(value)
    return f"{value:.0f}" if size >= 99.95 else f"{value:.1f}" if size >= 9.995 else f"{value:.2f}"


def format_bytes(count: float) -> str:
    """`count` bytes in words: exact below 10 kB (`4,096 B`), then three digits (`1.05 MB`); 1 kB is 1000 bytes."""
    if abs(count) < _EXACT_BELOW:
        return f"{count:,.0f} B"
    scale, unit = next(((s, u) for s, u in reversed(_BYTES) if abs(count) / s < _WRITTEN_LIMIT), _BYTES[0])
    return f"{_three_digits(count / scale)} {unit}"


def format_seconds(time_s: float) -> str:
    """`time_s` seconds in words, with three digits: `0 s`, `250 ns`, `1.50 ms`, `2.00 min`."""
    if time_s == 0:
        return "0 s"
    for scale, unit in _TIMES:
        # Rounded first, so that 999.7 ms is written 1.00 s and never 1000 ms.
        if float(_three_digits(abs(time_s) / scale)) >= 1:
            return f"{_three_digits(time_s / scale)} {unit}"
    return f"{_three_digits(time_s / 1e-9)} ns"


def time_unit(duration_s: float) -> tuple[float, str]:
    """The unit for an axis `duration_s` seconds long, as (seconds in one unit, its name)."""
    for scale, unit in _TIMES:
        # Two of a unit at least, or the axis would be labeled in hundredths of it.
        if duration_s >= 2 * scale:
            return scale, unit
    return _TIMES[-1] if duration_s > 0 else (1.0, "s")


def format_share(share: float) -> str:
    """A share from 0 to 1 as `27.3 %`."""
    return f"{100 * share:.1f} %"


def table(columns: Mapping[str, Sequence[str]]) -> str:
    """A table with right-aligned columns, from {heading: cells}."""
    padded = []
    for heading, cells in columns.items():
        width = max(map(len, [heading, *cells]))
        padded.append([cell.rjust(width) for cell in (heading, *cells)])
    return "\n".join("  ".join(row) for row in zip(*padded, strict=True))
