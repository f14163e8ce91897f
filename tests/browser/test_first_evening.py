"""A learner's first evening with a chapter: guess, write wrong and right, look at the picture, go on, stop, update."""

import shutil

import nbformat
import pytest

pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install 'parallel-lab[browser]'")

from lab_page import CHROMIUM, Notebook, browse
from lab_server import REPOSITORY, serve
from playwright.sync_api import expect

from parallel_lab.course.saving import PAGE, WIDGET
from parallel_lab.course.update import bring

NAME = "notebooks/02_collectives_and_topologies.ipynb"
GAP = "ring_all_gather"
WRONG = f"""def {GAP}(own):
    print("the sum of what I have is", own.sum().item())
    return torch.stack([own] * dist.get_world_size())"""
RIGHT = f"""def {GAP}(own):
    rank, n = dist.get_rank(), dist.get_world_size()
    held = [own.clone() for each in range(n)]
    for k in range(n - 1): sending = dist.isend(held[(rank - k) % n], (rank + 1) % n); dist.recv(held[(rank - k - 1) % n], (rank - 1) % n); sending.wait()
    return torch.stack(held)"""  # noqa: E501  one line, for JupyterLab indents what is typed
FOREVER = """def forever():
    while True:
        dist.all_reduce(torch.zeros(1))


launch(forever, ranks=2)"""


@pytest.fixture
def course(tmp_path):
    """A copy of the course, and in it a learner's folder."""
    root = tmp_path / "course"
    for folder in ("notebooks", "exercises"):
        shutil.copytree(REPOSITORY / folder, root / folder, ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    bring(root)
    return root


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
@pytest.mark.parametrize("theme", ["JupyterLab Light", "JupyterLab Dark"])
def test_a_first_evening(course, tmp_path, theme):
    mine = course / "work" / NAME
    opened = str(mine.relative_to(course))
    with serve(course, tmp_path, opened, theme) as address, browse(address, tmp_path) as (page, console):
        notebook = Notebook(page, nbformat.read(mine, as_version=4))
        notebook.run("imports")
        guess(notebook)
        from_wrong_to_right(notebook)
        drill(notebook)
        stop_a_run(notebook)
        page.keyboard.press("Escape")
        page.keyboard.press("ControlOrMeta+s")
        expect(page.locator(".jp-mod-dirty")).to_have_count(0)
        assert console.errors == []
    what_is_saved_outlives_its_kernel(nbformat.read(mine, as_version=4))
    an_update_keeps_what_was_written(course, mine)


def guess(notebook: Notebook) -> None:
    """The question stands there without its answer; a guess is kept."""
    notebook.run("predict-crossing")
    form = notebook.outputs("predict-crossing").locator(".widget-vbox").first
    form.get_by_role("textbox").fill("5")
    form.get_by_role("button", name="Keep my guess").click()
    expect(form.get_by_role("status")).to_contain_text("You say 5")


def from_wrong_to_right(notebook: Notebook) -> None:
    """The report shows what was printed and how to have the case again, the picture shows both runs; then: next."""
    check = f"gap-{GAP.replace('_', '-')}-check"
    report = notebook.outputs(check).get_by_role("region", name=GAP)
    notebook.write(f"gap-{GAP.replace('_', '-')}-write", WRONG)
    notebook.run(f"gap-{GAP.replace('_', '-')}-write")
    notebook.write(check, f'from parallel_lab import check\ncheck("{GAP}", {GAP})')
    notebook.run(check)
    for said in ("not yet", "the sum of what I have is", f'case("{GAP}"'):
        expect(report).to_contain_text(said)
    notebook.write(check, f'check("{GAP}", {GAP}).draw(reference=True)')
    notebook.run(check)
    expect(notebook.outputs(check).get_by_role("img").first).to_be_visible()
    notebook.write(f"gap-{GAP.replace('_', '-')}-write", RIGHT)
    notebook.run(f"gap-{GAP.replace('_', '-')}-write")
    notebook.write(check, f'check("{GAP}", {GAP})')
    notebook.run(check)
    expect(report).to_contain_text("solved")
    expect(report.get_by_role("link").last).to_be_visible()
    expect(report).to_contain_text("Next: ")


def drill(notebook: Notebook) -> None:
    """A wrong answer gets a hint and no solution; then it is derived, and other numbers come."""
    notebook.run("drill-ring-bytes")
    form = notebook.outputs("drill-ring-bytes").locator(".widget-vbox").first
    form.get_by_role("textbox").fill("0.001")
    form.get_by_role("button", name="Check").click()
    expect(form.get_by_role("status").first).to_contain_text("Not yet")
    expect(form).not_to_contain_text("All-gather")
    form.get_by_role("button", name="Show the solution").click()
    expect(form.get_by_role("status").last).to_contain_text("All-gather")
    form.get_by_role("button", name="Other numbers").click()
    expect(form.get_by_role("status")).to_have_count(0)


def stop_a_run(notebook: Notebook) -> None:
    """The Stop button ends in one block that says where the ranks stood, without a frame of ours."""
    notebook.write("quiz", FOREVER)
    notebook.start("quiz")
    notebook.stop()
    expect(notebook.outputs("quiz")).to_contain_text("stopped by you")
    expect(notebook.outputs("quiz")).not_to_contain_text("watch.py")


def what_is_saved_outlives_its_kernel(saved) -> None:
    """In place of a form, which JupyterLab could not show on the next day, there is the question as a page."""
    shown = [output.data for cell in saved.cells for output in cell.get("outputs", ()) if "data" in output]
    assert not [data for data in shown if WIDGET in data]
    (cell,) = (cell for cell in saved.cells if "predict-crossing" in cell.metadata.get("tags", ()))
    assert "run this cell" in cell.outputs[0].data[PAGE]


def an_update_keeps_what_was_written(course, mine) -> None:
    """A new version of the chapter lies beside the learner's own."""
    before = mine.read_text(encoding="utf-8")
    assert WRONG.splitlines()[0] in before and "Next: " in before
    given = nbformat.read(course / NAME, as_version=4)
    given.cells[0].source += "\n\nA sentence that is new."
    nbformat.write(given, course / NAME)
    assert any(".new" in line for line in bring(course))
    assert mine.read_text(encoding="utf-8") == before
    assert "A sentence that is new." in mine.with_suffix(".new.ipynb").read_text(encoding="utf-8")
