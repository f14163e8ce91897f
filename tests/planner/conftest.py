"""What the tests of the planner share: where published figures lie, and how ranks get functions of these tests."""

import json
from pathlib import Path

import pytest
import yaml

PUBLISHED = Path(__file__).resolve().parents[3] / "shared" / "reference" / "published.yaml"


@pytest.fixture(scope="session")
def published():
    """A table of the published figures by its id, as a list of rows; skips where the file is not there."""
    if not PUBLISHED.exists():
        pytest.skip("published.yaml is not beside the checkout")
    tables = {table["id"]: table for table in yaml.safe_load(PUBLISHED.read_text(encoding="utf-8"))["tables"]}

    def rows(name):
        found = [dict(zip(tables[name]["columns"], row, strict=True)) for row in tables[name]["rows"]]
        for row in found:
            row["args"] = json.loads(row["args_json"]) if "args_json" in row else {}
        return found

    return rows


@pytest.fixture(autouse=True, scope="module")
def _cheap_launches(by_value):
    """All launches of this folder."""
