"""The closed forms of bytes held and sent, without ranks."""

import pytest

from parallel_lab.data_parallel import formulas
from parallel_lab.data_parallel.units import padded as padded_rows

HELD = {  # bytes a parameter, in mixed precision and in float32
    "ddp": (lambda n: 16, lambda n: 16),
    "zero1": (lambda n: 4 + 12 / n, lambda n: 8 + 8 / n),
    "zero2": (lambda n: 2 + 14 / n, lambda n: 4 + 12 / n),
    "zero3": (lambda n: 16 / n, lambda n: 16 / n),
}


@pytest.mark.parametrize("technique", formulas.TECHNIQUES)
def test_the_closed_forms(technique):
    for n in (1, 2, 3, 64):
        for form, mixed in zip(HELD[technique], (True, False), strict=True):
            assert formulas.held_bytes(technique, 1000, n, mixed) == pytest.approx(1000 * form(n))
    times = {"ddp": 2, "zero1": 3, "zero2": 2, "zero3": 3}[technique]
    assert formulas.sent_bytes(technique, 1024, 4, 2) == times * 3 * 1024 * 2 // 4


def test_the_paper_s_example():
    """ZeRO, figure 1: 7.5 B parameters on 64 ranks hold 120, 31.4, 16.6 and 1.9 GB."""
    gigabytes = [formulas.held_bytes(t, 7_500_000_000, 64, True) / 1e9 for t in formulas.TECHNIQUES]
    assert gigabytes == pytest.approx([120, 31.4, 16.6, 1.9], abs=0.05)


def test_padding():
    assert formulas.padded([56, 57, 1], 4) == 56 + 60 + 4
    assert formulas.padded([56], 1) == 56
    assert padded_rows([(5, 3), (4,), ()], 4) == 8 * 3 + 4 + 4


@pytest.mark.parametrize(("technique", "n"), [("zero4", 2), ("ddp", 0)])
def test_nonsense_is_refused(technique, n):
    with pytest.raises(ValueError, match="expected"):
        formulas.held_bytes(technique, 10, n)
    with pytest.raises(ValueError, match="expected"):
        formulas.sent_bytes(technique, 10, n, 4)
