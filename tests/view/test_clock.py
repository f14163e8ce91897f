"""The clock: its traits in Python, and in a browser that it counts, announces, times an answer and reads out."""

import json

import pytest

from parallel_lab.view.clock import WORDS, Clock

PAGE = """<!doctype html><div id="here"></div><script type="module">
window.spoken = [];
let now = 0;
performance.now = () => now;
window.forward = (s) => (now += 1000 * s);
Object.defineProperty(globalThis, "speechSynthesis", {{ value: {{
  speaking: false, getVoices: () => {voices}, addEventListener: () => {{}},
  speak(one) {{ window.spoken.push([one.text, one.lang]); this.speaking = true; }},
  cancel() {{ this.speaking = false; }},
}} }});
globalThis.SpeechSynthesisUtterance = class {{ constructor(text) {{ this.text = text; }} }};
{module}
const state = {state}, calls = {{}};
window.state = state;
window.fromPython = (name, value) => {{ state[name] = value; (calls["change:" + name] || []).forEach((f) => f()); }};
const model = {{
  get: (name) => state[name], set: window.fromPython, save_changes: () => {{}},
  on: (name, call) => {{ (calls[name] ||= []).push(call); }}, off: () => {{}},
}};
window.stop = render({{ model, el: document.getElementById("here") }});
window.ready = true;
</script>"""


def test_python_sets_the_clock_as_a_whole():
    clock = Clock()
    clock.set(300, speak_s=30, text="Why?", unasked=True)
    assert (clock.left_s, clock.speak_s, clock.text, clock.unasked, clock.beat) == (300, 30, "Why?", True, 1)
    clock.set(299.5)
    assert (clock.speak_s, clock.text, clock.beat, repr(clock)) == (0, "", 2, "A clock at 4:59: it runs in JupyterLab.")
    clock.stop()
    assert not clock.running


def test_the_module_loads_nothing():
    source = Clock._esm if isinstance(Clock._esm, str) else str(Clock._esm)
    assert "import " not in source and "://" not in source and source.count("export default") == 1


@pytest.fixture
def shown(browser):
    pages = []

    def show(voices=("en-GB", "en-US"), **traits):
        state = {"left_s": 125.0, "beat": 0, "running": True, "speak_s": 30, "text": "Why?", "unasked": False}
        state |= {"fresh": False, "aloud": True, "language": "en-US", "words": WORDS, "over": False} | traits
        page = browser.new_page()
        module = str(Clock._esm).replace("export default { render };", "")
        listed = json.dumps([{"lang": lang} for lang in voices])
        page.set_content(PAGE.format(module=module, state=json.dumps(state), voices=listed))
        page.wait_for_function("window.ready")
        pages.append(page)
        return page

    yield show
    for page in pages:
        page.close()


def later(page, seconds, text):
    """Moves the page's clock, and waits until it shows `text`."""
    page.evaluate(f"forward({seconds})")
    page.wait_for_function(f"document.getElementById('here').textContent.includes({json.dumps(text)})")


@pytest.mark.browser
def test_it_counts_down_announces_and_ends(shown):
    page = shown()
    assert page.get_by_role("timer").text_content() == "2:05"
    later(page, 7, "1:58")
    later(page, 0, "2 minutes are left.")
    later(page, 60, "0:58")
    assert page.locator(".plab-clock-late").count() == 1
    later(page, 59, "Time is up.")
    assert page.evaluate("state.over") is True


@pytest.mark.browser
def test_it_times_an_answer(shown):
    page = shown()
    page.get_by_role("button", name="Start 30 s").click()
    later(page, 12, "12 / 30 s")
    assert page.locator("progress").evaluate("bar => bar.value") == 12
    later(page, 20, "30 s are over.")
    assert page.get_by_role("button", name="Start again").is_visible()


@pytest.mark.browser
def test_it_reads_out_in_the_language_of_the_interview(shown):
    page = shown()
    page.get_by_role("button", name="Read it out").click()
    assert page.evaluate("spoken") == [["Why?", "en-US"]]
    page.evaluate("state.text = 'Because.'; state.unasked = true; fromPython('beat', 1)")
    assert page.evaluate("spoken")[1] == ["Because.", "en-US"]
    page.get_by_role("checkbox").uncheck()
    page.evaluate("fromPython('beat', 2)")
    assert len(page.evaluate("spoken")) == 2


@pytest.mark.browser
def test_what_is_asked_anew_comes_into_view_and_takes_the_keyboard(shown):
    page = shown()
    page.evaluate("document.body.style.paddingBottom = '3000px'; scrollTo(0, 2000)")
    page.evaluate("fromPython('beat', 1)")
    assert page.evaluate("scrollY") == 2000
    page.evaluate("state.fresh = true; fromPython('beat', 2)")
    assert page.evaluate("scrollY") < 100
    assert page.evaluate("document.activeElement.className").startswith("plab-clock")


@pytest.mark.browser
def test_a_browser_without_a_voice_says_so(shown):
    page = shown(voices=("en-GB",), language="zh-CN")
    assert page.get_by_text("no voice for this language").is_visible()
    assert not page.get_by_role("button", name="Read it out").is_visible()


@pytest.mark.browser
def test_a_stopped_clock_stands(shown):
    page = shown()
    page.evaluate("fromPython('running', false); forward(60)")
    page.evaluate("fromPython('running', false)")
    assert page.get_by_role("timer").text_content() == "2:05"
