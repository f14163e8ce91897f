"""A line that says how far long work is: it comes after a while, under its cell or in a terminal, and goes."""

import threading
from types import SimpleNamespace

import IPython
import pytest

from parallel_lab.course.under_way import Line, said_while_it_lasts


@pytest.fixture
def under_a_cell(monkeypatch):
    """What a kernel would show, one text after the other."""
    shown, came = [], threading.Event()

    def take(html, **_):
        shown.append(html.data)
        came.set()
        return SimpleNamespace(update=take)

    monkeypatch.setattr(IPython, "get_ipython", lambda: SimpleNamespace(kernel=None))
    monkeypatch.setattr(IPython.display, "display", take)
    return shown, came


def test_a_line_under_a_cell_is_replaced_and_taken_away(under_a_cell):
    with Line() as line:
        line("1 < 2")
        line("done")
    assert under_a_cell[0] == ['<div role="status">1 &lt; 2</div>', '<div role="status">done</div>', ""]


def test_a_line_in_a_terminal_is_written_over_and_taken_away(monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with Line() as line:
        line("a long one")
        line("short")
    assert capsys.readouterr().err == "\ra long one\rshort     \r          \r"


def test_work_that_lasts_is_said_and_short_work_is_not(under_a_cell):
    shown, came = under_a_cell
    with said_while_it_lasts(lambda seconds: "still running", after_s=0.0):
        assert came.wait(60)
    assert "still running" in shown[0] and shown[-1] == ""
    shown.clear()
    with said_while_it_lasts(lambda seconds: "still running", after_s=60.0):
        pass
    assert shown == []


def test_what_the_block_raises_comes_through_and_the_line_goes(under_a_cell):
    shown, came = under_a_cell
    with pytest.raises(KeyError), said_while_it_lasts(lambda seconds: "still running", after_s=0.0):
        assert came.wait(60)
        raise KeyError
    assert shown[-1] == ""
