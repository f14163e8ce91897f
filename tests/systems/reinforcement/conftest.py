"""How ranks get the functions of these tests."""

import pytest


@pytest.fixture(autouse=True, scope="module")
def _cheap_launches(by_value):
    """All launches of this folder."""
