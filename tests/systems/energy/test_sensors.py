"""Sensors on a made-up tree and a made-up NVML, and what the two tools print on the machine of the test."""

import ctypes

import pytest

from parallel_lab.systems.energy import Meter, ask, found, nvml, rapl
from parallel_lab.systems.energy.work import busy


def tree(root, packages=2, content=None):
    for number in range(packages):
        for name in (f"intel-rapl:{number}", f"intel-rapl:{number}:0"):  # the second is a part of the first
            folder = root / name
            folder.mkdir(parents=True)
            (folder / "name").write_text(f"package-{number}\n" if name.count(":") == 1 else "core\n")
            (folder / "energy_uj").write_text(content or "5000000\n")
            (folder / "max_energy_range_uj").write_text("10000000\n")
    return root


def test_rapl_counts_packages_and_wraps(tmp_path):
    packages, said = rapl(tree(tmp_path))
    assert [each.name for each in packages] == ["package-0", "package-1"] and said == "RAPL: 2 packages"
    with Meter(packages) as meter:
        (tmp_path / "intel-rapl:0" / "energy_uj").write_text("7500000")
        (tmp_path / "intel-rapl:1" / "energy_uj").write_text("1000000")  # it began anew: 5 J to its end, and 1 J
    assert meter.measured and meter.joules == pytest.approx({"package-0": 2.5, "package-1": 6.0})


def test_the_whole_machine_is_not_counted_beside_its_packages(tmp_path):
    (tree(tmp_path) / "intel-rapl:1" / "name").write_text("psys\n")
    assert [each.name for each in rapl(tmp_path)[0]] == ["package-0"]


def test_rapl_that_is_not_there_or_cannot_be_read_says_so(tmp_path):
    assert rapl(tmp_path) == ([], f"no RAPL: {tmp_path} has no intel-rapl")
    nothing, said = rapl(tree(tmp_path, 1, "secret"))
    assert not nothing and said.startswith("RAPL is there and cannot be read: ValueError")


def test_without_a_sensor_the_clock_gives_bounds_only():
    with Meter([]) as meter:
        busy(0.001)
    assert not meter.measured
    low, high = meter.bounds_j(50, 400)
    assert 0 < low == pytest.approx(high / 8)


class Text:
    restype = None

    def __call__(self, status):
        return b"Not Supported"


class Fake:
    """NVML with two boards, the second of which has no energy counter."""

    def __init__(self, start=0):
        self.start, self.mj = start, 1000
        self.nvmlErrorString = Text()

    def nvmlInit_v2(self):
        return self.start

    def nvmlDeviceGetCount_v2(self, count):
        count._obj.value = 2
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, index, handle):
        handle._obj.value = index + 1
        return 0

    def nvmlDeviceGetUUID(self, handle, text, size):
        text.value = f"GPU-{handle.value}".encode()
        return 0

    def nvmlDeviceGetTotalEnergyConsumption(self, handle, value):
        self.mj += 2500
        value._obj.value = self.mj
        return 0 if handle.value == 1 else 3

    def nvmlDeviceGetPowerUsage(self, handle, value):
        value._obj.value = 123_456
        return 0

    def nvmlDeviceGetEnforcedPowerLimit(self, handle, value):
        value._obj.value = 400_000
        return 0


def test_nvml_reads_joules_and_watts(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: Fake())
    (board, other), said = nvml()
    assert said == "NVML: 2 GPUs" and board.name == "GPU 0 GPU-1"
    assert (board.power_w(), board.limit_w()) == (123.456, 400)
    with Meter([board]) as meter:
        pass
    assert meter.joules == {"GPU 0 GPU-1": 2.5}
    with pytest.raises(OSError, match="TotalEnergyConsumption: Not Supported"):
        other.joules()


def test_nvml_that_is_not_there_or_does_not_start_says_so(monkeypatch):
    assert nvml("libthereisnone.so") == ([], "no NVML: libthereisnone.so is not there")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: Fake(start=9))
    assert nvml() == ([], "NVML is there and does not start: status 9")


def test_found_says_what_was_looked_for():
    listed, said = found()
    assert len(said) == 2 and all("RAPL" in said[0] or "NVML" in said[1] for _ in listed)


@pytest.fixture(scope="module")
def reports():
    return {tool: ask(tool, 0.2) for tool in ("zeus", "codecarbon")}


def test_zeus_measures_or_is_silent(reports):
    """Where the course finds no sensor, zeus reports nothing: no joule is made up."""
    report, (listed, _) = reports["zeus"], found()
    if not report.version:
        pytest.skip(report.said)
    assert report.seconds > 0.2
    assert bool(report.joules) == bool(listed)
    assert not report.modeled


def test_codecarbon_always_answers(reports):
    """Its memory is always a model's, 20 W or more whatever it does; without a sensor the processor is too."""
    report, (listed, _) = reports["codecarbon"], found()
    if not report.version:
        pytest.skip(report.said)
    assert report.joules["ram"] > 0 and "ram" in report.modeled
    assert report.how["pue"] == 1
    if not listed:
        assert set(report.modeled) == {"cpu", "ram"} and report.joules["gpu"] == 0
        assert report.share("ram") + report.share("cpu") == pytest.approx(1)


def test_a_tool_that_is_not_installed_is_said(monkeypatch):
    monkeypatch.setattr("parallel_lab.systems.energy.tools.find_spec", lambda name: None)
    assert ask("zeus").said == "zeus is not installed: `make energy` installs it"
    assert ask("zeus").total_j == ask("zeus").share("cpu") == 0
    with pytest.raises(ValueError, match="expected one of zeus, codecarbon"):
        ask("a wattmeter")


def test_a_tool_that_fails_is_said():
    said = ask("zeus", "soon").said  # not a number of seconds
    assert "zeus ended with 1" in said or "not installed" in said
