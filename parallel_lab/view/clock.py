"""A clock that runs in the browser, with a timer for what one says aloud, and a voice where the browser has one.

The page needs no network: the voice is the browser's own (Web Speech API, `speechSynthesis`); where it has none for the
language, the clock says so. What is counted is the browser's time since Python last set `left_s`, so a busy kernel does
not stop the clock.
"""

from pathlib import Path

import anywidget
import traitlets

_HERE = Path(__file__).parent
WORDS = {  # what the clock says; each may be given in another language
    "left": "left of the interview",
    "over": "Time is up.",
    "minutes": "{minutes} minutes are left.",
    "speak": "Start {seconds} s",
    "again": "Start again",
    "spoken": "{seconds} s are over.",
    "read": "Read it out",
    "stop": "Stop reading",
    "aloud": "Read answers out by itself",
    "silent": "This browser has no voice for this language.",
}


class Clock(anywidget.AnyWidget):
    """The time that is left, counted down in the browser. What the reader sees is in traits."""

    _esm = (_HERE / "clock.js").read_text("utf-8")
    _css = (_HERE / "clock.css").read_text("utf-8")

    left_s = traitlets.Float(0.0).tag(sync=True)  # of the interview, at the time at which `beat` changed
    beat = traitlets.Int(0).tag(sync=True)  # counts how often Python has set the clock
    running = traitlets.Bool(True).tag(sync=True)
    speak_s = traitlets.Int(0).tag(sync=True)  # a guide for an answer aloud; 0 where nothing is said
    text = traitlets.Unicode("").tag(sync=True)  # what the voice reads; empty where there is nothing
    unasked = traitlets.Bool(False).tag(sync=True)  # whether the voice may begin by itself, if `aloud` is ticked
    fresh = traitlets.Bool(False).tag(sync=True)  # whether something new is asked: then the clock comes into view
    aloud = traitlets.Bool(True).tag(sync=True)
    language = traitlets.Unicode("en-US").tag(sync=True)
    words = traitlets.Dict(WORDS).tag(sync=True)
    over = traitlets.Bool(False).tag(sync=True)  # set by the browser when nothing is left

    def set(
        self, left_s: float, *, speak_s: int = 0, text: str = "", unasked: bool = False, fresh: bool = False
    ) -> None:
        """Sets the clock: what is left, the guide for the answer, and what the voice may read."""
        with self.hold_sync():
            self.left_s, self.speak_s, self.text, self.unasked = left_s, speak_s, text, unasked
            self.fresh = fresh
            self.over = self.over and left_s <= 0
            self.beat += 1

    def stop(self) -> None:
        """Stops the clock where it is."""
        self.running = False

    def __repr__(self) -> str:  # what a page without widgets shows
        minutes, seconds = divmod(max(int(self.left_s), 0), 60)
        return f"A clock at {minutes}:{seconds:02}: it runs in JupyterLab."
