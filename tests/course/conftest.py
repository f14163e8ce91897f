"""What the tests of forms share."""

import pytest


def widgets_in(box):
    for child in getattr(box, "children", ()):
        yield child
        yield from widgets_in(child)


@pytest.fixture(scope="session")
def by_kind():
    """The widgets of one class in a form, in the order in which they are read."""
    return lambda form, kind: [one for one in widgets_in(form) if type(one).__name__ == kind]
