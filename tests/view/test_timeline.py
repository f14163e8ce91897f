import base64
import io
import itertools
import random
import subprocess
import sys
from html import escape
from types import SimpleNamespace

import matplotlib as mpl
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from PIL import Image

from parallel_lab.network import Link
from parallel_lab.plan import Op, Plan
from parallel_lab.trace import Sample, Span, Trace
from parallel_lab.view import draw
from parallel_lab.view import drawing as view_drawing
from parallel_lab.view.drawing import FOLDED
from parallel_lab.view.style import KINDS, Look, looks


def pipeline(ranks: int, microbatches: int) -> Plan:
    ops = [Op(rank, kind, rank, mb) for kind in "FB" for rank in range(ranks) for mb in range(microbatches)]
    needs = {op: [Op(op.rank - 1, "F", op.rank - 1, op.mb)] for op in ops if op.kind == "F" and op.rank}
    return Plan.of(ops, needs)


def busy_trace(ranks: int, spans: int) -> Trace:
    """Random spans in all lanes, with some overlap within the lanes."""
    numbers = random.Random(0)
    made = []
    for rank in range(ranks):
        at = 0.0
        for i in range(spans):
            kind, lane = (("F", "compute"), ("B", "compute"), ("send", "send"), ("recv", "recv"))[i % 4]
            length = numbers.random() * 1e-4
            made.append(Span(rank, kind, at, at + length, rank, i // 4, -1, lane))
            at += 0.7 * length
    return Trace(ranks, tuple(made), tuple(Sample(r, 1e-4, 10**r) for r in range(ranks)))


def long_names() -> Trace:
    return Trace(
        2, tuple(Span(r, f"a_very_long_name_of_a_kind_of_work_{i}", i, i + 1) for i in range(9) for r in (0, 1))
    )


def unequal() -> Trace:
    return Trace(2, (Span(0, "F", 0, 1e-9, 0, 1), Span(0, "B", 1, 90, 0, 10**6), Span(1, "F", 50, 50.001, 1, 1)))


CASES = {
    "plan": pipeline(4, 6),
    "dense": busy_trace(8, 250),
    "sixteen ranks": busy_trace(16, 40),
    "one span": Trace(1, (Span(0, "F", 0, 1e-7),)),
    "no span": Trace(2, ()),
    "no length": Trace(1, (Span(0, "F", 3, 3),)),
    "long names": long_names(),
    "unequal": unequal(),
}


@pytest.mark.parametrize("name", CASES)
def test_no_text_overlaps_other_text_or_leaves_the_picture(name):
    figure = draw(CASES[name], title="A title").figure
    FigureCanvasAgg(figure).draw()
    axes = figure.axes[0]
    shown = [t for t in figure.findobj(Text) if t.get_text() and t.get_visible()]
    # Tick labels beyond the limits exist but are not drawn.
    low, high = axes.get_xlim()
    ticks = {
        id(label) for at, label in zip(axes.get_xticks(), axes.get_xticklabels(), strict=True) if not low <= at <= high
    }
    boxes = [(t.get_text(), t.get_window_extent()) for t in shown if id(t) not in ticks]
    for (a, first), (b, second) in itertools.combinations(boxes, 2):
        overlap_x = min(first.x1, second.x1) - max(first.x0, second.x0)
        overlap_y = min(first.y1, second.y1) - max(first.y0, second.y0)
        assert overlap_x <= 0.5 or overlap_y <= 0.5, f"{a!r} and {b!r} overlap"
    width, height = figure.bbox.width, figure.bbox.height
    for text, box in boxes:
        assert box.x0 >= 0 and box.x1 <= width and box.y0 >= 0 and box.y1 <= height, f"{text!r} is cut off"


@pytest.mark.parametrize("name", CASES)
def test_the_png_is_small_and_says_what_it_shows(name):
    drawing = draw(CASES[name])
    image = Image.open(io.BytesIO(drawing.png))
    assert len(drawing.png) < 60_000
    assert image.info["Description"] == drawing.alt
    assert image.convert("RGB").getpixel((1, 1)) == (255, 255, 255)


def test_each_kind_is_painted_in_its_color():
    image = Image.open(io.BytesIO(draw(Trace(1, (Span(0, "F", 0, 1), Span(0, "send", 0, 1, lane="send")))).png))
    colors = {color for count, color in image.convert("RGB").getcolors() or [] if count > 500}
    for kind in ("F", "send"):
        assert tuple(bytes.fromhex(KINDS[kind].color[1:])) in colors


def test_the_same_trace_gives_the_same_bytes_whatever_the_readers_settings():
    first = draw(pipeline(2, 2)).png
    with mpl.rc_context({"font.size": 30, "hatch.linewidth": 5, "axes.facecolor": "red"}):
        assert draw(pipeline(2, 2)).png == first


def test_a_notebook_shows_the_picture_with_its_alternative_text_and_then_the_summary(monkeypatch):
    outputs = []
    monkeypatch.setattr(
        view_drawing, "display", lambda data, metadata=None, raw=False: outputs.append((data, metadata))
    )
    drawing = draw(pipeline(2, 2), title="Two stages")
    drawing._ipython_display_()
    (image, metadata), (text, _) = outputs
    assert base64.b64decode(image["image/png"]) == drawing.png
    assert metadata["image/png"]["alt"] == drawing.alt == metadata["alt"]
    assert drawing.alt.startswith("Two stages. Timeline: 2 ranks, 8 steps")
    assert text["text/plain"] == drawing.text and escape(drawing.alt) in text["text/html"]
    assert f"<summary>{FOLDED}</summary>" in text["text/html"] and escape(drawing.text) in text["text/html"]
    assert "bubble: the share" in text["text/html"]


def test_what_a_notebook_compares_holds_no_measured_time():
    drawings = [draw(Trace(1, (Span(0, "F", 0, length),))) for length in (1.0, 2.5)]
    assert drawings[0].png != drawings[1].png
    assert drawings[0].text == drawings[1].text and drawings[0].alt == drawings[1].alt


def test_memory_takes_a_strip_where_it_was_sampled():
    trace = busy_trace(2, 8)
    assert draw(trace).figure.get_figheight() > draw(Trace(2, trace.spans)).figure.get_figheight()


def test_saving_writes_the_png_and_the_trace_file(tmp_path):
    drawing = draw(pipeline(2, 2))
    drawing.save(tmp_path / "a.png")
    drawing.chrome(tmp_path / "a.json")
    assert (tmp_path / "a.png").read_bytes() == drawing.png
    assert '"traceEvents"' in (tmp_path / "a.json").read_text()


def test_looks_are_fixed_and_all_different():
    names = [*KINDS, *(f"own work {i}" for i in range(20))]
    found = looks(names)
    assert len(set(found.values())) == len(names)
    assert looks(["own work 3"])["own work 3"] == looks(["F", "own work 3"])["own work 3"]
    assert found["F"] == KINDS["F"] == Look("#56B4E9", "")


def test_loading_the_view_leaves_pyplot_and_torch_alone():
    code = "import sys, parallel_lab.view; print([m for m in ('matplotlib.pyplot', 'torch') if m in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )


def test_loading_the_package_leaves_matplotlib_alone():
    code = "import sys, parallel_lab, parallel_lab.trace; print('matplotlib' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
        == "False"
    )


def test_bands_can_have_names_of_their_own():
    drawn = draw(busy_trace(2, 4), names=["naive", "overlap"])
    written = {text.get_text() for text in drawn.figure.findobj(Text)}
    assert {"naive", "overlap"} <= written and not {"rank 0", "rank 1"} & written
    assert [line.split()[0] for line in drawn.text.splitlines()[2:4]] == ["naive", "overlap"]
    with pytest.raises(ValueError, match="3 names for 2 ranks"):
        draw(busy_trace(2, 4), names=["a", "b", "c"])


def cut_short() -> Trace:
    """Rank 1 waits for rank 0, which has returned."""
    waits = Span(1, "recv", 3.0, 3.0, 0, 0, 0, "recv", 8, line="In[3], line 5", ended=False)
    return Trace(2, (Span(0, "F", 0.0, 2.0, 0, 0), Span(1, "F", 1.0, 3.0, 0, 0), waits)).cut_short()


def test_what_had_not_ended_is_outlined_and_named_with_its_line():
    drawing = draw(cut_short())
    assert [text.get_text() for text in drawing.figure.findobj(Text)].count("not ended") == 1
    assert "outlined: had not ended" in {text.get_text() for text in drawing.figure.findobj(Text)}
    first, second = drawing.text.splitlines()[2:4]
    assert first.endswith("none") and second.endswith("recv from rank 0 (In[3], line 5)")
    whole = draw(Trace(2, cut_short().spans[:2]))
    assert "ended" not in whole.text and "ended" not in {text.get_text() for text in whole.figure.findobj(Text)}


def test_a_launch_that_failed_is_drawn_from_its_error_and_without_an_argument_the_last_one_shown(monkeypatch):
    error = RuntimeError("hung")
    error.trace = cut_short()
    assert draw(error).trace == cut_short()
    monkeypatch.setattr(sys, "last_value", error, raising=False)
    assert draw().trace == cut_short()
    monkeypatch.setattr(sys, "last_value", KeyError("another"), raising=False)
    with pytest.raises(ValueError, match="not of a launch"):
        draw()
    monkeypatch.delattr(sys, "last_value")
    with pytest.raises(ValueError, match="not of a launch"):
        draw()


def test_over_the_link_of_a_run_what_waits_is_pale_and_the_legend_says_so():
    def legend(spans, link):
        run = SimpleNamespace(trace=Trace(1, spans), link=link)
        return [text.get_text() for text in draw(run).figure.legends[0].get_texts()]

    spans = tuple(Span(0, "send", 0.0, 13.0 * (i + 1), bytes=1_000, lane="send") for i in range(2))
    assert legend(spans, Link(3.0, 100.0)) == ["send", "pale: asked for, not yet moving"]
    assert legend(spans, None) == legend(spans[:1], Link(3.0, 100.0)) == ["send"]
