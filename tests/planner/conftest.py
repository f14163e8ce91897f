"""What the tests of the planner share: published figures, and how ranks get functions of these tests."""

import json
import sys
from pathlib import Path

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def published(published_yaml):
    """A table of the published figures by its id, as a list of rows."""
    tables = {table["id"]: table for table in yaml.safe_load(published_yaml.read_text(encoding="utf-8"))["tables"]}

    def rows(name):
        found = [dict(zip(tables[name]["columns"], row, strict=True)) for row in tables[name]["rows"]]
        for row in found:
            row["args"] = json.loads(row["args_json"]) if "args_json" in row else {}
        return found

    return rows


@pytest.fixture(autouse=True, scope="module")
def _cheap_launches(by_value):
    """All launches of this folder."""
