"""What a power cut leaves on a real file system: nothing of what was not synced, and the whole of what was."""

import pytest

from parallel_lab.systems.resilience import power_cut

WHY = power_cut.unavailable()
on_a_disk = pytest.mark.skipif(bool(WHY), reason=WHY)


@on_a_disk
@pytest.mark.parametrize(
    ("steps", "found"),
    [
        (("write", "rename"), "none"),
        (("write", "sync file", "rename"), "none"),
        (("write", "rename", "sync folder"), "torn"),
        (power_cut.STEPS, "new"),
    ],
)
def test_only_what_was_synced_is_there(steps, found):
    assert power_cut.found_after(steps) == found


@on_a_disk
def test_nothing_stays_mounted():
    power_cut.found_after(("write",))
    with open("/proc/mounts", encoding="utf-8") as mounts:
        assert "power-" not in mounts.read()


def test_a_step_that_there_is_not_is_refused():
    with pytest.raises(ValueError, match="'flush'"):
        power_cut.found_after(("write", "flush"))


def test_whoever_may_not_mount_is_told(monkeypatch):
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert "root" in power_cut.unavailable()
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("shutil.which", lambda tool: None)
    assert "apt-get install" in power_cut.unavailable()


def test_a_mount_that_is_refused_is_told(monkeypatch):
    def refused(*words):
        raise OSError("mount: permission denied")

    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("shutil.which", lambda tool: tool)
    monkeypatch.setattr(power_cut, "_run", refused)
    assert "permission denied" in power_cut.unavailable()
