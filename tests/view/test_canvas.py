import json

import pytest

from parallel_lab.trace import Sample, Span, Trace
from parallel_lab.view import draw
from parallel_lab.view.canvas import MOST_BOXES, Canvas, module, payload


def small() -> Trace:
    spans = []
    for rank in range(2):
        spans += [Span(rank, "F", 10.0 + mb, 11.0 + mb, rank, mb) for mb in range(4)]
        spans.append(Span(rank, "send", 12.0, 12.5, 0, 1, 1 - rank, "send", 4096, 4096, 1, 0.25, line="cell.py:7"))
    return Trace(2, tuple(spans), (Sample(0, 10.0, 100), Sample(0, 13.0, 50)), simulated=True)


def test_the_payload_says_all_that_a_tooltip_shows():
    data = payload(small(), slots=False, label="two ranks")
    names = [kind["name"] for kind in data["kinds"]]
    box = next(box for box in data["boxes"] if names[box[5]] == "send")
    rank, lane, row, start_s, duration_s, _, part, mb, peer, size, wait_s, line, count, cut = box
    assert (rank, data["lanes"][lane]["name"], row, start_s, duration_s) == (0, "communicate", 0, 2.0, 0.5)
    assert (part, mb, peer, size, wait_s) == (0, 1, 1, 4096, 0.25)
    assert (data["lines"][line], count, cut) == ("cell.py:7", 1, 0)
    assert data["memory"] == [[[0.0, 100], [3.0, 50]], []]
    assert json.loads(json.dumps(data)) == data


def test_the_payload_marks_what_had_not_ended():
    waits = Span(0, "send", 1.0, 1.0, 0, 0, 1, "send", 8, ended=False)
    trace = Trace(2, (Span(0, "F", 0.0, 1.0), waits)).cut_short()
    assert [row[-1] for row in payload(trace, slots=False, label="")["boxes"]] == [0, 1]


def test_many_spans_are_merged_to_the_limit():
    spans = tuple(Span(0, "FB"[i % 2], i * 1e-6, (i + 0.5) * 1e-6, 0, i) for i in range(30_000))
    boxes = payload(Trace(1, spans), slots=False, label="")["boxes"]
    assert 0 < len(boxes) <= MOST_BOXES
    assert sum(box[-2] for box in boxes) == 30_000


def test_the_widget_starts_with_all_in_view():
    widget = draw(small()).interactive()
    assert isinstance(widget, Canvas)
    assert (widget.start_s, widget.end_s, widget.selected) == (0.0, 4.0, -1)
    assert "run this cell" in repr(widget)  # no address: it is stored in notebooks


def test_the_module_loads_nothing():
    source = module()
    assert "import " not in source.replace("important", "") and "://" not in source
    assert source.count("export default") == 1


PAGE = """<!doctype html><style>:root {{ --jp-ui-font-color1: {ink} }}</style><div id="here"></div>
<script type="module">{module}
const state = {state}, calls = {{}};
window.state = state;
window.fromPython = (name, value) => {{ state[name] = value; (calls["change:" + name] || []).forEach((f) => f()); }};
const model = {{
  get: (name) => state[name], set: window.fromPython, save_changes: () => {{}},  // each set tells the listeners
  on: (name, call) => {{ (calls[name] ||= []).push(call); }}, off: () => {{}},
}};
window.stop = render({{ model, el: document.getElementById("here") }});
window.ready = true;
</script>"""


@pytest.fixture
def page(browser):
    data = payload(small(), slots=False, label="two ranks", title="Two ranks send")
    state = {"data": data, "start_s": 0.0, "end_s": data["duration_s"], "selected": -1}
    opened = browser.new_page(viewport={"width": 900, "height": 600})
    errors = []
    opened.on("pageerror", lambda error: errors.append(error))
    opened.set_content(
        PAGE.format(module=module().replace("export default { render };", ""), state=json.dumps(state), ink="#123456")
    )
    opened.wait_for_function("window.ready")
    yield opened
    opened.close()
    assert errors == []


def view(page) -> tuple[float, float, int, int]:
    data = page.locator(".plab-timeline").evaluate("root => ({...root.dataset})")
    return float(data["start"]), float(data["end"]), int(data["selected"]), int(data["rank"])


def press(page, *keys: str) -> None:
    page.locator(".plab-timeline").focus()
    for key in keys:
        page.keyboard.press(key)


@pytest.mark.browser
def test_keys_zoom_pan_and_reset(page):
    press(page, "+")
    assert view(page)[:2] == (1.0, 3.0)
    press(page, "ArrowRight")
    assert view(page)[:2] == pytest.approx((1.2, 3.2))
    assert page.evaluate("[state.start_s, state.end_s]") == pytest.approx([1.2, 3.2])
    press(page, "ArrowLeft", "-")
    assert view(page)[:2] == pytest.approx((0.0, 4.0))
    press(page, "+", "+", "Home")
    assert view(page)[:2] == (0.0, 4.0)


@pytest.mark.browser
@pytest.mark.parametrize("shown", [0.5, 2.25, 3.5])
def test_plus_keeps_the_selected_span_in_view(page, shown):
    times = page.evaluate("state.data.boxes.map(box => [box[0], box[3], box[4]])")
    chosen = next(i for i, (rank, start, took) in enumerate(times) if rank == 0 and start + took / 2 == shown)
    page.evaluate(f"fromPython('selected', {chosen})")
    press(page, "+", "+", "+", "+")
    start, end, *_ = view(page)
    assert start <= shown <= end and end - start == pytest.approx(0.25)


@pytest.mark.browser
def test_plus_comes_back_to_a_selected_span_that_has_left_the_view(page):
    press(page, "Shift+ArrowRight", "+", "+", *["ArrowRight"] * 30, "+")
    start, end, *_ = view(page)
    assert start <= 0.5 <= end


@pytest.mark.browser
def test_it_has_a_title_and_explains_its_words(page):
    assert page.locator(".plab-timeline-title").inner_text() == "Two ranks send"
    numbers = page.locator(".plab-timeline-numbers")
    assert not numbers.locator("pre").is_visible()
    numbers.locator("summary").click()
    said = numbers.inner_text()
    assert "bubble" in numbers.locator("pre").inner_text()
    for word in ("busy:", "overlap:", "bubble:"):
        assert word in said


@pytest.mark.browser
def test_keys_step_through_spans_and_ranks_and_say_what_is_selected(page):
    press(page, "Shift+ArrowRight", "Shift+ArrowRight", "Shift+ArrowRight", "Shift+ArrowRight")
    spoken = page.locator(".plab-timeline-live").inner_text()
    for fact in ("operation send", "bytes 4,096 B", "peer rank 1", "waited 250 ms", "line cell.py:7", "start 2.00 s"):
        assert fact in spoken
    assert page.locator(".plab-timeline-tip").is_visible()
    press(page, "ArrowDown")
    assert view(page)[3] == 1 and view(page)[2] == page.evaluate("state.selected") >= 0
    press(page, "Shift+ArrowLeft", "ArrowUp", "ArrowUp")
    assert view(page)[3] == 0
    press(page, "Escape")
    assert view(page)[2] == -1 and page.locator(".plab-timeline-live").inner_text() == ""


@pytest.mark.browser
def test_the_mouse_zooms_pans_hovers_and_selects(page):
    canvas = page.locator("canvas.plab-timeline-canvas")
    place = canvas.bounding_box()
    page.mouse.move(place["x"] + 300, place["y"] + 20)
    assert "forward" in page.locator(".plab-timeline-tip").inner_text()
    page.mouse.wheel(0, -200)
    page.wait_for_function("document.querySelector('.plab-timeline').dataset.end < 4")
    before = view(page)
    page.mouse.down()
    page.mouse.move(place["x"] + 250, place["y"] + 20, steps=3)
    page.mouse.up()
    assert view(page)[0] > before[0] and view(page)[2] == -1
    page.mouse.down()
    page.mouse.up()
    assert view(page)[2] >= 0


@pytest.mark.browser
def test_python_moves_the_view(page):
    page.evaluate("fromPython('start_s', 2.5)")
    assert view(page)[:2] == (2.5, 4.0)


@pytest.mark.browser
def test_it_can_be_reached_and_is_named_for_a_screen_reader(page):
    page.keyboard.press("Tab")
    root = page.locator(".plab-timeline:focus")
    assert root.get_attribute("role") == "application"
    assert root.get_attribute("aria-label").startswith("two ranks") and "Home" in root.get_attribute("aria-label")


@pytest.mark.browser
def test_boxes_are_painted_in_the_colors_of_the_figure(page):
    sky = [86, 180, 233, 255]
    page.wait_for_function(
        """sky => {
          const canvas = document.querySelector("canvas.plab-timeline-canvas");
          const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
          let count = 0;
          for (let i = 0; i < pixels.length; i += 4) count += sky.every((value, k) => pixels[i + k] === value);
          return count > 1000;
        }""",
        arg=sky,
    )
