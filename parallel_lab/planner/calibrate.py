"""Fits the planner's constants to published runs, and says how far its predictions are from them.

    python -m parallel_lab.planner.calibrate                  # fits the rows of rows.csv, writes constants.yaml
    python -m parallel_lab.planner.calibrate published.yaml   # reads the rows from tables, and writes rows.csv as well
    python -m parallel_lab.planner.calibrate --check          # fits, and writes nothing
    python -m parallel_lab.planner.calibrate --judge FILE     # judges the constants by the tables of FILE

The fit sees nothing but the rows. It prints the constants, the errors by stratum of the fit and of rows that it has not
seen (whole models, whole layouts, whole strata left out), the order within models, the regret of the chosen layouts,
and by name the rows that it does not explain. It takes a minute.
"""

import argparse
import csv
import io
import sys
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from statistics import mean

import numpy as np
import yaml

from parallel_lab.planner.constants import BOUNDS, Constants
from parallel_lab.planner.constants import constants as fitted
from parallel_lab.planner.fitting import FOLDS, Errors, Fit, by_stratum, fit, left_out
from parallel_lab.planner.judging import Verdict, judge
from parallel_lab.planner.rows import COLUMNS, Row, rows, text_of
from parallel_lab.planner.tables import read

HEAD = """\
# Published runs that the planner's constants are fitted to; written by python -m parallel_lab.planner.calibrate FILE.
# vtrain: Bang et al. 2024, vTrain (MICRO), github.com/VIA-Research/vTrain, data/ground_truth_*.csv (MIT).
# megatron: Narayanan et al. 2021, table 1, and Megatron-LM's README. megatron 2020: images/tables.tex beside it.
# korthikanti: Korthikanti et al. 2022, table 5. zero bubble: Qi et al. 2024, table 4.
# bloom: BigScience, github.com/bigscience-workshop/bigscience, train/tr11-176B-ml, chronicles-prequel.md and README.md.
# mosaic: github.com/mosaicml/llm-foundry, scripts/train/benchmarking/README.md (Apache-2.0).
# What the tables leave open stands in tables.py. step_s: measured seconds of a step.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    options = _parser().parse_args(arguments)
    if options.judge:
        found = read(options.judge)
        if not any(row.step_s and not row.note for row in found):
            print(f"{options.judge} has no row of a table that the planner knows", file=sys.stderr)
            return 1
        say_verdict(judge(found, fitted()), "constants of constants.yaml")
        return 0
    found = tuple(read(options.tables)) if options.tables else rows()
    whole = fit(found)
    say_constants(whole.constants)
    say_verdict(judge(found, whole.constants), "the fit")
    unseen = say_left_out(whole)
    if not options.check:
        if options.tables:
            _path("rows.csv").write_text(rows_text(found), encoding="utf-8")
        _path("constants.yaml").write_text(constants_text(whole, unseen), encoding="utf-8")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m parallel_lab.planner.calibrate", description=str(__doc__).split("\n")[0]
    )
    parser.add_argument("tables", type=Path, nargs="?", help="a YAML file of tables; without it, rows.csv is fitted")
    parser.add_argument("--check", action="store_true", help="fit and print, and write nothing")
    parser.add_argument("--judge", type=Path, metavar="FILE", help="tables to judge the constants by")
    return parser


def say_constants(constants: Constants) -> None:
    """Prints each constant with its unit and what it is."""
    print(f"{'constant':22s}{'value':>10s}  unit   bounds")
    for name, value in constants.values().items():
        bound = BOUNDS[name]
        print(f"{name:22s}{value:10.4g}  {bound.unit:6s} {bound.low:g} to {bound.high:g}: {bound.meaning}")


def say_verdict(verdict: Verdict, title: str) -> None:
    """Prints errors, beside those of a rule with one share of the peak, order, regret, and rows without explanation."""
    print(f"\n{title}: errors of the step time, in percent")
    print(
        f"{'stratum':24s}{'rows':>5s}{'mean':>7s}{'median':>7s}{'most':>7s}{'bias':>7s}{'rule':>7s}{'order':>7s}{'regret':>8s}"
    )
    for stratum, errors in verdict.strata.items():
        order, regrets = verdict.ranks[stratum], verdict.regrets[stratum]
        more = f"{100 * verdict.rule[stratum].mean:7.1f}" + (f"{mean(order):7.2f}" if order else f"{'':7s}")
        more += f"{100 * max(regrets):8.1f}" if regrets else ""
        print(_line(stratum, errors) + more)
    print(_line("all", verdict.whole))
    print(_line("and those with a note", verdict.every))
    if verdict.refused[1]:
        print(f"runs that did not fit: {verdict.refused[0]} of {verdict.refused[1]} predicted not to fit")
    for row, error in verdict.noted:
        print(f"not fitted, {100 * error:+.0f} %: {_name(row)}: {row.note}")


def say_left_out(whole: Fit) -> dict[str, dict[str, Errors]]:
    """Prints the errors of rows that the fit has not seen, and returns them."""
    found = {}
    for title, key, folds in (
        ("models", lambda row: row.model, FOLDS),
        ("layouts", lambda row: row.layout, FOLDS),
        ("strata", lambda row: row.stratum, None),
    ):
        errors = left_out(whole, key, folds)
        found[title] = by_stratum(whole.rows, errors) | {"all": Errors.of(errors)}
        print(f"\n{title} that the fit has not seen, {folds or 'one'} {'folds' if folds else 'at a time'}")
        for stratum, one in found[title].items():
            print(_line(stratum, one))
    worst = sorted(zip(whole.rows, np.expm1(whole.residuals), strict=True), key=lambda pair: -abs(pair[1]))[:12]
    print("\nthe rows farthest from the fit")
    for row, error in worst:
        print(f"{100 * error:+6.1f} %  {_name(row)}")
    return found


def _line(stratum: str, errors: Errors) -> str:
    sizes = "".join(f"{100 * value:7.1f}" for value in errors[1:])
    return f"{stratum:24s}{errors.rows:5d}{sizes}"


def _name(row: Row) -> str:
    scheme, shape = row.scheme, row.shape
    layout = f"pp {scheme.pp} dp {scheme.dp} tp {scheme.tp} microbatch {scheme.microbatch}"
    return f"{row.stratum}, width {shape.width}, {shape.layers} layers, {shape.heads} heads, seq {shape.seq}, {layout}"


def constants_text(whole: Fit, unseen: dict[str, dict[str, Errors]]) -> str:
    """The file constants.yaml."""
    errors = by_stratum(whole.rows, list(np.expm1(whole.residuals)))
    tables = {"fit": errors} | {f"unseen {title}": found for title, found in unseen.items()}
    percent = {
        title: {stratum: [one.rows, *(round(100 * float(x), 1) for x in one[1:3])] for stratum, one in found.items()}
        for title, found in tables.items()
    }
    values = {name: float(f"{value:.4g}") for name, value in whole.constants.values().items()}
    head = "# Written by `python -m parallel_lab.planner.calibrate`; nothing in it was tuned by hand.\n"
    head += "# errors: of each stratum the rows, and mean and median of the relative error, in percent.\n"
    text = {"constants": values, "errors": percent}
    return head + yaml.safe_dump(text, sort_keys=False, default_flow_style=None, width=110)


def rows_text(found: Sequence[Row]) -> str:
    """The file rows.csv."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(text_of(found))
    return HEAD + text.getvalue()


def _path(name: str) -> Path:
    return Path(str(files("parallel_lab.planner").joinpath(name)))


if __name__ == "__main__":
    sys.exit(main())
