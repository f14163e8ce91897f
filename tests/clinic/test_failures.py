"""The published counts are those of the originals, and the two formulas hold."""

import pytest
import yaml

from parallel_lab.clinic.failures import by_category, hang_gpu_hours, meets_one, published


def test_llama_3_has_419_unexpected_interruptions():
    assert sum(by_category().values()) == 419
    assert by_category()["GPU"] == 268 and by_category()["software"] == 56


def test_the_counts_are_those_of_the_original(published_yaml):
    text = published_yaml.read_text(encoding="utf-8")
    tables = {table["id"]: table["rows"] for table in yaml.safe_load(text)["tables"]}
    counts = [row[2] for row in tables["llama3_table5_failures"]]
    assert [row[2] for row in published()["llama3"]] == counts


def test_a_chance_is_one_minus_that_of_none():
    assert meets_one(1, 0.25) == pytest.approx(0.25) and meets_one(2, 0.5) == pytest.approx(0.75)
    assert meets_one(10, 0.0) == 0 and meets_one(0, 0.5) == 0


def test_a_hang_costs_all_gpus():
    assert hang_gpu_hours(60, 60, 30, 30) == pytest.approx(2.0)
