"""What the tests of practice share: a progress file of their own, a clock that stands."""

from datetime import UTC, datetime, timedelta

import pytest

from parallel_lab.course import progress


class Clock:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.at = datetime(2026, 11, 28, 9, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.at

    def forward(self, **by: float) -> None:
        self.at += timedelta(**by)


@pytest.fixture(autouse=True)
def own_progress(tmp_path, monkeypatch):
    monkeypatch.setenv("PARALLEL_LAB_PROGRESS", str(tmp_path / "progress.json"))
    monkeypatch.delenv("PARALLEL_LAB_LANGUAGE", raising=False)
    return tmp_path / "progress.json"


@pytest.fixture
def clock(monkeypatch):
    one = Clock()
    monkeypatch.setattr(progress, "now", one)
    return one
