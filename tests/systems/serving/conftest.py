"""How ranks get the functions of these tests, and what the tests share."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True, scope="module")
def _cheap_launches(by_value):
    """All launches of this folder."""
