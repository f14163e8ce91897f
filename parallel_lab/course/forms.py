"""The widgets with which cards, self-checks and predictions are answered in JupyterLab; each works by keyboard alone.

What is said to an answer goes to an HTML widget and not through an Output widget, whose saved state never compares.
ipywidgets is loaded when the first form is shown: `plab` shows none.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import lazy_loader

from parallel_lab.course import page

widgets: Any = lazy_loader.load("ipywidgets")


def bundle(form: Any, static: page.Page) -> dict[str, Any]:
    """What a cell shows: the form, which JupyterLab prefers, and the page that is read where no widgets run."""
    shown = dict(form._repr_mimebundle_() or {})
    return shown | {"text/html": static._repr_html_(), "text/plain": repr(static)}


def box(*children: Any, side_by_side: bool = False) -> Any:
    """Widgets below or beside each other."""
    return (widgets.HBox if side_by_side else widgets.VBox)(children)


def html(text: str = "") -> Any:
    """A text."""
    return widgets.HTML(text)


def button(words: str, tooltip: str, clicked: Callable[[], None]) -> Any:
    """A button as wide as its words."""
    one = widgets.Button(
        description=words, tooltip=tooltip, layout=widgets.Layout(width="auto", align_self="flex-start")
    )
    one.on_click(lambda _: clicked())
    return one


def radio(
    lines: Sequence[str], values: Sequence[str], tooltip: str, value: str | None = None, side_by_side: bool = False
) -> Any:
    """One of several lines, or of several words beside each other."""
    options, wide = list(zip(lines, values, strict=True)), widgets.Layout(width="auto")
    way = {"orientation": "horizontal"} if side_by_side else {}
    return widgets.RadioButtons(options=options, value=value, layout=wide, tooltip=tooltip, **way)


def dropdown(words: str, lines: Sequence[str], values: Sequence[Any], tooltip: str, value: Any = None) -> Any:
    """One of several lines, folded until it is opened."""
    options, about = list(zip(lines, values, strict=True)), {"description": words, "tooltip": tooltip}
    wide = {"style": {"description_width": "initial"}, "layout": widgets.Layout(width="auto", align_self="flex-start")}
    return widgets.Dropdown(options=options, value=values[0] if value is None else value, **about, **wide)


def tick(words: str, tooltip: str, value: bool = False) -> Any:
    """A line with a box to tick."""
    wide = {"indent": False, "layout": widgets.Layout(width="auto")}
    return widgets.Checkbox(value=value, description=words, tooltip=tooltip, **wide)


def text(words: str, placeholder: str, tooltip: str, value: str | None = None) -> Any:
    """A line to type in."""
    about = {"description": words, "placeholder": placeholder, "tooltip": tooltip}
    return widgets.Text(value=value or "", style={"description_width": "initial"}, **about)


def area(words: str, placeholder: str, tooltip: str, value: str = "", lines: int = 6) -> Any:
    """Several lines to type in."""
    about = {"description": words, "placeholder": placeholder, "tooltip": tooltip, "rows": lines}
    wide = widgets.Layout(width="95%")
    return widgets.Textarea(value=value, style={"description_width": "initial"}, layout=wide, **about)


def row(asked: Sequence[page.Part], field: Any, words: str, tooltip: str, answer: Callable[[Any], page.Page]) -> Any:
    """A question with its input and a button; below, what `answer` says to what was put in."""
    said = html()

    def clicked() -> None:
        said.value = status(answer(field.value))

    on_enter(field, clicked)
    return box(parts(asked), field, button(words, tooltip, clicked), said)


def on_enter(field: Any, clicked: Callable[[], None]) -> None:
    """Enter in a line to type in does what the button beside it does."""
    if isinstance(field, widgets.Text):
        field.on_msg(lambda _field, content, _buffers: clicked() if content.get("event") == "submit" else None)


def parts(shown: Iterable[page.Part], style: bool = False) -> Any:
    """Parts of a page as a widget; with `style`, the style that they and what comes below need."""
    inside = "".join(part.html for part in shown)
    return html(f'{page.STYLE if style else ""}<div class="plab">{inside}</div>')


def status(said: page.Page) -> str:
    """A page as screen readers read it out when it appears."""
    return f'<div role="status">{said.section}</div>'
