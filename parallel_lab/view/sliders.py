"""`sliders`: a picture of numbers that the reader moves.

What is stored with a notebook, and read where no widgets run, is the picture of the first numbers. What follows a
slider is an HTML widget and not an Output widget, whose saved state never compares.
"""

import base64
import inspect
from collections.abc import Callable, Sequence
from html import escape
from typing import Any

import lazy_loader

from parallel_lab.view.drawing import CSS_DPI, FOLDED, Drawing

widgets: Any = lazy_loader.load("ipywidgets")


class Sliders:
    """A picture with a slider for each of its numbers, see `sliders`."""

    def __init__(self, picture: Callable[..., Drawing], choices: dict[str, Sequence]) -> None:
        self.picture = picture
        first = {name: given.default for name, given in inspect.signature(picture).parameters.items()}
        wrong = [name for name, values in choices.items() if first.get(name, inspect.Parameter.empty) not in values]
        if wrong:
            raise ValueError(f"the picture needs a default among its choices for {', '.join(wrong)}")
        self.choices = choices
        self.values = {name: first[name] for name in choices}

    def show(self, **values) -> str:
        """HTML of the picture of `values`, which are kept; of numbers that do not fit together, why."""
        self.values |= values
        try:
            return _image(self.picture(**self.values))
        except ValueError as error:
            return f'<p role="status">{escape(str(error))}</p>'

    def form(self) -> Any:
        """The sliders, and the picture that follows them."""
        shown = widgets.HTML(self.show())
        return widgets.VBox([*(self._control(name, shown) for name in self.choices), shown])

    def _control(self, name: str, shown: Any) -> Any:
        values, common = self.choices[name], {"value": self.values[name], "description": name}
        if isinstance(values, range):
            ends = {"min": values[0], "max": values[-1], "step": values.step, "continuous_update": False}
            control = widgets.IntSlider(**common, **ends)
        else:
            control = widgets.Dropdown(options=list(values), **common)
        control.observe(lambda change: setattr(shown, "value", self.show(**{name: change["new"]})), "value")
        return control

    def _repr_mimebundle_(self, **_) -> tuple[dict[str, Any], dict[str, Any]]:
        drawing = self.picture(**self.values)
        shown = dict(self.form()._repr_mimebundle_() or {})
        shown |= {"image/png": base64.b64encode(drawing.png).decode(), "text/plain": repr(self)}
        return shown, {"alt": drawing.alt, "image/png": {"alt": drawing.alt, **_size(drawing)}}

    def __repr__(self) -> str:  # what a page without widgets and pictures shows
        numbers = ", ".join(f"{name} = {value}" for name, value in self.values.items())
        return (
            f"Sliders: run this cell in JupyterLab to move them. Shown for {numbers}.\n{self.picture(**self.values)!r}"
        )


def sliders(picture: Callable[..., Drawing], **choices: Sequence) -> Sliders:
    """Shows `picture(...)` with a slider for each argument that has a `range`, and a list for each other choice.

    The numbers begin at the defaults of `picture`. Where they do not fit together, `picture` raises a ValueError, whose
    sentence takes the place of the picture.

    Raises:
        ValueError: A default of `picture` is not among its choices.
    """
    return Sliders(picture, choices)


def _size(drawing: Drawing) -> dict[str, int]:
    """Width and height at which the picture is shown, in CSS pixels."""
    width, height = (int(side * CSS_DPI) for side in drawing.figure.get_size_inches())
    return {"width": width, "height": height}


def _image(drawing: Drawing) -> str:
    size = " ".join(f'{side}="{pixels}"' for side, pixels in _size(drawing).items())
    source = base64.b64encode(drawing.png).decode()
    image = f'<img alt="{escape(drawing.alt)}" {size} src="data:image/png;base64,{source}">'
    return f"{image}<details><summary>{FOLDED}</summary><pre>{escape(drawing.text)}</pre></details>"
