"""`show` finds code by its object or its name, prints what stands in the file, and links to it."""

import pytest

from parallel_lab import show
from parallel_lab.course.listing import PACKAGE
from parallel_lab.course.typed import UnknownName
from parallel_lab.data_parallel import DDP, Zero1, average_gradients, ddp


def test_an_object_and_its_name_show_the_same():
    assert show(DDP.send) == show("ddp.DDP.send") == show("data_parallel.ddp.DDP.send")
    assert "\ndef average_gradients(" in show(average_gradients).code
    assert show(ddp).code.startswith('"""') and show("zero3.Zero3").code.startswith("class Zero3(")


def test_parts_stand_together_without_their_indent():
    shown = show(DDP, "send", "finish")
    assert shown.code.count("\ndef ") == 1 and shown.code.startswith("def send(")
    assert shown.names == "ddp.DDP: send, finish"


def test_decorators_are_shown():
    assert show(Zero1.step).code.startswith("@torch.no_grad()\ndef step(")


def test_of_a_docstring_the_first_line_is_shown_and_all_on_request():
    assert "Args:" not in show(DDP).code
    assert show(DDP).code.splitlines()[1].endswith('"""')
    whole = show(DDP, docstring=True).code
    assert "Args:" in whole and whole in show(ddp, docstring=True).code


def test_the_link_leads_from_the_notebooks_folder_to_the_file(monkeypatch):
    monkeypatch.chdir(PACKAGE.parent / "notebooks")
    html = show(DDP.send)._repr_html_()
    assert '<a href="../parallel_lab/data_parallel/ddp.py">parallel_lab/data_parallel/ddp.py</a>' in html
    assert '<span class="k">def</span>' in html
    assert repr(show(DDP.send)).startswith("# ddp.DDP.send · parallel_lab/data_parallel/ddp.py\n\ndef send(")


@pytest.mark.parametrize(
    ("what", "parts", "said"),
    [
        ("zero9.Zero3", (), "there is no module 'zero9'; the nearest are zero3"),
        ("ddp.DDP.sent", (), "there is no part 'sent'; the nearest are send"),
        (DDP, ("sent",), "there is no part 'sent'; the nearest are send"),
        ("server.Shard", (), "'server' may be parameter_server.server or runtime.kernel.server"),
    ],
)
def test_a_wrong_name_says_what_exists(what, parts, said):
    with pytest.raises(UnknownName, match=said):
        show(what, *parts)


@pytest.mark.parametrize("what", [3, pytest, pytest.raises])
def test_what_is_not_of_the_course_is_refused(what):
    with pytest.raises(TypeError, match="of parallel_lab"):
        show(what)
