import pytest

from parallel_lab.trace.units import format_bytes, format_seconds, time_unit


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (9_999, "9,999 B"),
        (10_000, "10.0 kB"),
        (12_345, "12.3 kB"),
        (999_499, "999 kB"),
        (999_600, "1.00 MB"),
        (1_048_576, "1.05 MB"),
        (123_400_000, "123 MB"),
        (2.5e15, "2.50 PB"),
    ],
)
def test_bytes_are_exact_while_small_and_then_have_three_digits(count, text):
    assert format_bytes(count) == text


@pytest.mark.parametrize(
    ("time_s", "text"),
    [
        (0, "0 s"),
        (250e-9, "250 ns"),
        (1.5e-6, "1.50 µs"),
        (12.34e-3, "12.3 ms"),
        (0.9997, "1.00 s"),
        (59.99, "1.00 min"),
        (7200, "2.00 h"),
        (3 * 86400, "3.00 d"),
        (1e-12, "0.00 ns"),
    ],
)
def test_seconds_take_the_unit_that_suits_them(time_s, text):
    assert format_seconds(time_s) == text


@pytest.mark.parametrize(("duration_s", "unit"), [(5e-9, "ns"), (1.5e-3, "µs"), (2e-3, "ms"), (90, "s"), (0, "s")])
def test_an_axis_has_at_least_two_of_its_unit(duration_s, unit):
    assert time_unit(duration_s)[1] == unit
