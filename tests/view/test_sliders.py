import pytest

from parallel_lab.view import bars, sliders


def picture(p=4, m=8, kind="gpipe"):
    if m % p:
        raise ValueError(f"m = {m} is no multiple of <p> = {p}")
    return bars({kind: [p, m]}, ["p", "m"], "number", title=f"{kind}, p = {p}")


CHOICES = {"p": range(2, 9), "m": range(2, 33, 2), "kind": ["gpipe", "1F1B"]}


def test_the_stored_picture_is_that_of_the_first_numbers_and_has_a_text():
    data, metadata = sliders(picture, **CHOICES)._repr_mimebundle_()
    assert {"image/png", "text/plain", "application/vnd.jupyter.widget-view+json"} <= data.keys()
    assert metadata["alt"].startswith("gpipe, p = 4") and metadata["image/png"]["width"] > 300
    assert "p = 4, m = 8, kind = gpipe" in data["text/plain"]


def test_the_picture_follows_each_control():
    shown = sliders(picture, **CHOICES)
    p, m, kind, html = shown.form().children
    assert (p.min, p.max, p.value, m.step) == (2, 8, 4, 2) and kind.options == ("gpipe", "1F1B")
    p.value, kind.value = 2, "1F1B"
    assert "1F1B, p = 2" in html.value and shown.values == {"p": 2, "m": 8, "kind": "1F1B"}


def test_numbers_that_do_not_fit_are_told_in_a_sentence_and_the_next_that_fit_are_drawn():
    p, _, _, html = sliders(picture, **CHOICES).form().children
    p.value = 3
    assert html.value == '<p role="status">m = 8 is no multiple of &lt;p&gt; = 3</p>'
    p.value = 8
    assert "<img alt=" in html.value


def test_a_first_number_must_be_among_the_choices():
    with pytest.raises(ValueError, match=r"a default among its choices for m$"):
        sliders(picture, p=range(2, 9), m=range(3))
