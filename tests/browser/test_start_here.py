"""The first notebook as a learner meets it: JupyterLab, a real browser, a keyboard and a mouse."""

import json
import re
from pathlib import Path

import nbformat
import pytest

pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install 'parallel-lab[browser]'")

from lab_page import CHROMIUM, Notebook, browse
from lab_server import copy_course, serve
from playwright.sync_api import Locator, expect

from parallel_lab.course.asked import Number
from parallel_lab.course.quizzes import sheets

NAME = "notebooks/00_start_here.ipynb"
RUN_ALL_MS = 120_000
CHECK_MS = 30_000
MARKED = "# <- change this line"

# Console errors that are JupyterLab's own, as (pattern, why). None is known in JupyterLab 4.6.
NOISE: list[tuple[str, str]] = []


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_a_learner_works_through_the_first_notebook(tmp_path):
    root = tmp_path / "course"
    source = nbformat.read(copy_course(NAME, root), as_version=4)
    with serve(root, tmp_path, NAME) as address, browse(address, tmp_path) as (page, console):
        notebook = Notebook(page, source)
        assert notebook.run_all(RUN_ALL_MS) == []
        move_the_timeline(notebook)
        predict_and_compare(notebook)
        answer_the_self_check(notebook)
        solve_the_warm_up(notebook)
        see_the_progress(notebook, root / "progress.json")
        assert [line for line in console.errors if not any(re.search(known, line) for known, _ in NOISE)] == []
        assert console.hosts <= {"127.0.0.1", ""}, "the page asked for something from elsewhere"


def move_the_timeline(notebook: Notebook) -> None:
    """By keyboard alone: zoom, pan, another rank, a span, all again."""
    timeline = notebook.outputs("timeline-interactive").locator(".plab-timeline")
    whole = view(timeline)
    press(timeline, "+")
    zoomed = view(timeline)
    assert whole["start"] < zoomed["start"] < zoomed["end"] < whole["end"]
    press(timeline, "ArrowRight")
    assert view(timeline)["start"] > zoomed["start"]
    press(timeline, "ArrowDown")
    assert (view(timeline)["rank"], view(timeline)["selected"] >= 0) == (1, True)
    expect(timeline.get_by_role("status")).to_contain_text("rank 1")
    press(timeline, "Escape", "Home")
    assert view(timeline) == {**whole, "rank": 1}


def press(timeline: Locator, *keys: str) -> None:
    timeline.focus()
    for key in keys:
        timeline.press(key)


def view(timeline: Locator) -> dict[str, float]:
    data = timeline.evaluate("root => ({...root.dataset})")
    return {name: float(data[name]) for name in ("start", "end", "selected", "rank")}


def predict_and_compare(notebook: Notebook) -> None:
    """Nothing was guessed at first; a guess is kept by keyboard, and the cell that had shown the answer takes it up."""
    seen = notebook.outputs("seen-slow-rank")
    expect(seen).to_contain_text("You wrote down no guess; the cell shows “about 10 ms less”")
    form = notebook.outputs("predict-slow-rank").locator(".widget-vbox").first
    form.get_by_role("radio").first.focus()
    form.get_by_role("radio").first.press("Space")
    form.get_by_role("button", name="Keep my guess").press("Enter")
    expect(form.get_by_role("status")).to_contain_text("You say “as long as rank 0”.")
    notebook.run("seen-slow-rank")
    expect(seen).to_contain_text("You said “as long as rank 0”, the cell shows “about 10 ms less”")
    expect(seen).to_contain_text("A cell had shown the answer before, so it is no prediction.")


def answer_the_self_check(notebook: Notebook) -> None:
    """Tries the options of a choice until one is right, then a wrong and the right number."""
    rows = notebook.outputs("quiz").locator(".widget-vbox .widget-vbox")
    choice, number = (rows.filter(has=notebook.page.get_by_role(role)).first for role in ("radio", "textbox"))
    # No two of these answers have the same feedback, so that none is taken for the one before it.
    for letter, option in zip("abcdefghij", choice.get_by_role("radio").all(), strict=False):
        option.check()
        if _submit(choice, rf"✗ Not yet\s*Not {letter}\)|✓ Right").startswith("✓"):
            break
    expect(choice.get_by_role("status")).to_contain_text("✓ Right")
    number.get_by_role("textbox").fill("many")
    _submit(number, r"✗ Not yet\s*'many' is not a number")
    number.get_by_role("textbox").fill(str(next(one.answer for one in sheets()["00"].quiz if isinstance(one, Number))))
    _submit(number, "✓ Right")


def _submit(row: Locator, feedback: str) -> str:
    row.get_by_role("button", name="Check").click()
    expect(row.get_by_role("status")).to_have_text(re.compile(feedback))
    return row.get_by_role("status").inner_text()


def solve_the_warm_up(notebook: Notebook) -> None:
    """As it stands, with another wrong line, with the right line: the report follows."""
    report = notebook.outputs("sum-of-ranks-check").get_by_role("region", name="sum_of_ranks")
    expect(report).to_contain_text("not yet")
    tries = {
        "dist.broadcast(total, src=0)": "called broadcast",
        "dist.all_reduce(total)": "solved, 3 of 3 tests passed",
    }
    for line, said in tries.items():
        expect(report).not_to_contain_text(said)
        notebook.change_line("sum-of-ranks", MARKED, f"{line}  {MARKED}")
        notebook.run("sum-of-ranks", CHECK_MS)
        notebook.run("sum-of-ranks-check", CHECK_MS)
        expect(report).to_contain_text(said)


def see_the_progress(notebook: Notebook, file: Path) -> None:
    """The table of the notebook and the file of the learner's folder agree that the warm-up is solved."""
    table = notebook.outputs("progress").get_by_role("region", name="Progress")
    solved = table.get_by_role("row", name=re.compile("sum_of_ranks solved"))
    expect(solved).to_have_count(0)
    notebook.run("progress")
    expect(solved).to_have_count(1)
    kept = json.loads(file.read_text())
    assert kept["exercises"]["sum_of_ranks"]["best"] == 1.0
    assert [entry["best"] > 0 for entry in kept["quizzes"].values()] == [True]
