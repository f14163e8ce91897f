"""`plab`: every command, its errors in one line, Ctrl-C with 130."""

import click
import nbformat
import pytest
from click.testing import CliRunner
from nbformat.v4 import new_code_cell, new_notebook

from parallel_lab.cli import commands, doctor, main
from parallel_lab.cli.commands import parse_link
from parallel_lab.course import generate, workspace
from parallel_lab.runtime import Link


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("PARALLEL_LAB_PROGRESS", str(tmp_path / "progress.json"))
    monkeypatch.chdir(tmp_path)


def plab(*arguments, **options):
    return CliRunner().invoke(main, list(arguments), **options)


SHIFT = """import torch
import torch.distributed as dist

def ring_shift(tensor):
    n, rank = dist.get_world_size(), dist.get_rank()
    if n == 1:
        return tensor.clone()
    ### BEGIN SOLUTION
    sending = dist.isend(tensor, (rank + 1) % n)
    dist.recv(received := torch.empty_like(tensor), (rank - 1) % n)
    sending.wait()
    return received
    ### END SOLUTION
"""


@pytest.fixture
def course(tmp_path, monkeypatch):
    monkeypatch.setattr(workspace, "root", lambda: tmp_path)
    (tmp_path / "solutions").mkdir()
    cells = [new_code_cell("%matplotlib inline\nprint('never run')\n1 / 0", id="a"), new_code_cell(SHIFT, id="shift")]
    nbformat.write(new_notebook(cells=cells), tmp_path / "solutions" / "02_collectives.ipynb")
    generate.write(tmp_path, "02_collectives")
    return tmp_path


@pytest.mark.parametrize("command", [[], ["doctor"], ["list"], ["check"], ["progress"], ["reset"], ["run"], ["update"]])
def test_help_has_an_example(command):
    result = plab(*command, "--help")
    assert result.exit_code == 0
    assert "plab " + (command[0] if command else "doctor") in result.output


def test_doctor_reports_and_runs_ranks():
    result = plab("doctor")
    assert "2 real ranks agreed" in result.output and "progress.json (not begun)" in result.output
    assert result.exit_code == ("NO " in result.output)


def test_doctor_survives_a_broken_part(monkeypatch):
    def broken():
        raise RuntimeError("no such thing\nat all")

    assert str(doctor._safely(broken)).split() == ["NO", "broken", "RuntimeError:", "no", "such", "thing"]


def test_list_shows_exercises_and_questions():
    result = plab("list", "2")
    assert "ring_all_reduce" in result.output and "C7" in result.output and "not started" in result.output
    assert "02 Collectives" in result.output and "03 Data" not in result.output
    assert "23 What goes wrong" in plab("list").output


def test_list_of_no_chapter_is_one_line():
    result = plab("list", "77")
    assert result.exit_code == 1
    assert result.output.strip() == "Error: there is no chapter '77'; there are 00 to 23"


def test_check_runs_what_the_notebook_defines(course):
    result = plab("check", "02_collectives", "solutions/02_collectives.ipynb")
    assert "ring_shift: solved, 3 of 3 tests passed" in result.output
    assert "ring_all_reduce: 02_collectives.ipynb does not define it" in result.output
    assert "never run" not in result.output
    assert result.exit_code == 1  # one is solved, three are missing
    assert "ring_shift" in plab("progress").output


def test_check_of_a_stub_is_not_started(course):
    result = plab("check", "02")
    assert "ring_shift: not started" in result.output
    assert result.exit_code == 1


@pytest.mark.parametrize(
    ("source", "said"),
    [("def f(:", "cell bad: SyntaxError"), ("import no_such_module", "cell bad: ModuleNotFoundError")],
)
def test_check_names_the_cell_that_cannot_be_read(course, source, said):
    nbformat.write(new_notebook(cells=[new_code_cell(source, id="bad")]), "mine.ipynb")
    result = plab("check", "02", "mine.ipynb")
    assert said in result.output and len(result.output.splitlines()) == 1


def test_check_of_an_unknown_notebook_lists_the_known(course):
    assert "there are: 02_collectives" in plab("check", "05").output


def test_reset_asks_and_keeps_backups(course):
    given, mine = (course / place / "02_collectives.ipynb" for place in ("exercises", "work/exercises"))
    stub = given.read_text()
    assert plab("reset", "02").exit_code == 0  # there is nothing to lose
    assert mine.read_text() == stub
    mine.write_text("my work")
    assert plab("reset", "02", input="n\n").exit_code == 130
    assert mine.read_text() == "my work"
    assert plab("reset", "02", input="y\n").exit_code == 0
    assert mine.read_text() == stub
    mine.write_text("more work")
    assert plab("reset", "02_collectives", "--yes").exit_code == 0
    assert (mine.parent / "02_collectives.ipynb.bak1").read_text() == "my work"
    assert (mine.parent / "02_collectives.ipynb.bak2").read_text() == "more work"
    assert given.read_text() == stub


PROGRAM = """import torch
import torch.distributed as dist
def main():
    x = torch.ones(10)
    dist.all_reduce(x)
    return int(x.sum())
def bad():
    raise ValueError("on purpose")
"""


def test_run_shows_results_and_bytes(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    result = plab("run", "program.py:main", "--ranks", "2", "--link", "1ms,100MB")
    assert result.exit_code == 0, result.output
    assert "rank 1 returned 20" in result.output and "40" in result.output


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("program.py:bad", "ValueError: on purpose"),
        ("program.py:none", "has no function 'none'"),
        ("program.py", "expected FILE.py:FUNCTION"),
        ("nowhere.py:main", "expected FILE.py:FUNCTION"),
        ("broken.py:main", "broken.py: SyntaxError"),
    ],
)
def test_run_says_what_is_wrong(tmp_path, target, said):
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "broken.py").write_text("def (")
    result = plab("run", target)
    assert result.exit_code == 1
    assert said in result.output and "Traceback" not in result.output


def test_interrupt_ends_with_130(monkeypatch, tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)

    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "launch", interrupted)
    result = plab("run", "program.py:main")
    assert result.exit_code == 130
    assert result.output.strip() == "stopped"


@pytest.mark.parametrize(
    ("text", "link"),
    [(None, None), ("1ms,100MB", Link(1e-3, 1e8)), ("50us,1GB/s", Link(5e-5, 1e9)), ("0.5,1e6", Link(0.5, 1e6))],
)
def test_links_as_people_type_them(text, link):
    found = parse_link(text)
    if link is None:
        assert found is None
    else:
        assert found and (found.latency_s, found.bytes_per_s) == pytest.approx((link.latency_s, link.bytes_per_s))


def test_link_that_cannot_be_read_is_refused():
    with pytest.raises(ValueError, match="expected LATENCY,BANDWIDTH"):
        parse_link("fast")
    assert isinstance(main, click.Group)


@pytest.mark.parametrize(
    ("mode", "well", "said"), [("Default", True, "take turns"), ("Exclusive_Process", False, "fails")]
)
def test_doctor_says_what_ranks_that_share_a_gpu_meet(monkeypatch, mode, well, said):
    monkeypatch.setattr(doctor.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(doctor.torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(doctor.torch.cuda, "get_device_name", lambda i: "H100")
    monkeypatch.setattr(doctor, "_compute_modes", lambda: [mode])
    found = doctor._gpus()
    assert found.well is well and found.seen.startswith("H100; ") and said in found.seen
