"""The roofline of energy and the price of a byte: closed forms, and what is larger than what."""

import pytest

from parallel_lab.simulate import Roofline
from parallel_lab.systems.energy import EnergyRoofline, all_reduce_j, matmul_j, multiply_add_j, reuse_that_pays
from parallel_lab.systems.energy.moving import read_j

TIME = Roofline(flops_per_s=100e12, bytes_per_s=1e12)


@pytest.fixture
def machine():
    return EnergyRoofline.of(TIME, peak_w=400, static_w=100, balance=50)


def test_power_is_highest_at_the_ridge(machine):
    assert machine.power_w(TIME.ridge) == pytest.approx(400)
    assert machine.balance == pytest.approx(50)
    assert all(machine.power_w(each) < 400 for each in (1, 50, 99, 101, 1000))


def test_energy_adds_what_time_hides(machine):
    """A kernel with as many joules of bytes as of FLOPs: in time only the bytes count there, below the ridge."""
    flops, moved = 50e12, 1e12
    assert TIME.bound(flops, moved) == "memory" and TIME.time_s(flops, moved) == 1
    assert flops * machine.flop_j == pytest.approx(moved * machine.byte_j)
    assert machine.joules(flops, moved) == pytest.approx(100 + 2 * flops * machine.flop_j)


def test_flops_per_joule_rise_to_a_limit(machine):
    curve = [machine.flops_per_j(each) for each in (1, 10, 100, 1000, 1e6)]
    assert curve == sorted(curve)
    assert curve[-1] == pytest.approx(1 / (machine.flop_j + 100 / 100e12), rel=1e-3)


def test_a_peak_below_static_power_is_refused():
    with pytest.raises(ValueError, match="not above static_w"):
        EnergyRoofline.of(TIME, peak_w=100, static_w=100, balance=50)


def test_a_read_from_dram_costs_hundreds_of_additions():
    assert read_j("DRAM", 4) == pytest.approx(650e-12)
    assert read_j("DRAM", 4) / 0.9e-12 > 700
    assert multiply_add_j("float32") == pytest.approx(4.6e-12) and multiply_add_j("int8") == pytest.approx(0.23e-12)
    assert reuse_that_pays("float32") == pytest.approx(141, abs=1)


def test_tiles_move_fewer_bytes():
    small, large = (matmul_j(4096, "float16", tile) for tile in (1, 128))
    assert small["arithmetic"] == large["arithmetic"] == pytest.approx(4096**3 * 1.5e-12)
    assert small["DRAM"] > large["DRAM"]
    assert small["DRAM"] / small["arithmetic"] > 100 and large["DRAM"] < 4 * large["arithmetic"]


def test_all_reduce():
    assert all_reduce_j(8, 1e9, 10) == pytest.approx(2 * 7 * 8e9 * 10e-12)
    assert all_reduce_j(1, 1e9, 10) == 0
