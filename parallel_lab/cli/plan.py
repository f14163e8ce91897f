"""`plab plan`: which layout to train a model with, why, what comes close, and what to type for it.

    plab plan --model llama3-70b --gpus 1024 --cluster h100-ib

Everything is computed from the model of costs of chapter 21, and nothing is run.
"""

import json
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click

from parallel_lab.cli.folders import CommandError
from parallel_lab.planner.clusters import Cluster, cluster, clusters
from parallel_lab.planner.estimate import Estimate, estimate
from parallel_lab.planner.flags import FRAMEWORKS, Flags, all_flags
from parallel_lab.planner.memory import room
from parallel_lab.planner.models import Model, model, models
from parallel_lab.planner.search import NEAR, Found, axes, search
from parallel_lab.planner.sensitivity import CHANGES, sensitivity, text
from parallel_lab.planner.space import Space
from parallel_lab.planner.terms import text_of
from parallel_lab.planner.words import reasons, trade, words
from parallel_lab.trace.units import format_bytes, format_seconds, format_share

TOKENS_OF_A_STEP = 2**22  # where no batch is given; GPT-3 had 3.2 M tokens a step, Llama 2 4 M
BAR_AFTER_S = 1.0
SUFFIXES = {"": 1.0, "k": 1e3, "M": 1e6, "B": 1e9, "G": 1e9, "T": 1e12}
FILES = {
    "torchtitan": "torchtitan.sh",
    "Megatron-LM": "megatron.sh",
    "DeepSpeed": "deepspeed.json",
    "parallel_lab.hybrid.train": "hybrid_train.sh",
}


@click.command(
    "plan",
    epilog="Examples: plab plan --model llama3-70b --gpus 1024 --cluster h100-ib, plab plan --list, "
    "plab plan --model mixtral-8x7b --gpus 64 --cluster a100-mosaic --seq 4096 --why step",
)
@click.option("--model", "model_name", metavar="NAME", help="Of the table, see --list.")
@click.option("--cluster", "cluster_name", metavar="NAME", help="Of the table, see --list.")
@click.option("--gpus", type=click.IntRange(min=1), help="Accelerators, in whole nodes; the cluster's own by default.")
@click.option("--batch", type=click.IntRange(min=1), help="Sequences of a step; 4 M tokens by default.")
@click.option("--seq", type=click.IntRange(min=1), help="Tokens of a sequence; the model's own by default.")
@click.option("--tokens", metavar="COUNT", help="Of the whole training, e.g. 15T: days, energy and money for it.")
@click.option("--precision", type=click.Choice(["bf16", "fp16", "fp8", "fp32"]), default="bf16", show_default=True)
@click.option("--offload", is_flag=True, help="Also look at schemes that keep the optimizer in host memory.")
@click.option("--for", "framework", type=click.Choice(list(FRAMEWORKS)), help="Only what this framework can run.")
@click.option("--why", metavar="NAME", help="Print what a number is made of: step, memory, or a part of them.")
@click.option("--sensitivity", "sensitive", is_flag=True, help="Plan again for other networks, memories, batches.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Write the flags into this folder.")
@click.option("--json", "as_json", is_flag=True, help="Print the result for a program to read.")
@click.option("--list", "listed", is_flag=True, help="List models, and clusters with their sources.")
def command(
    model_name: str | None, cluster_name: str | None, why: str | None, as_json: bool, listed: bool, **options: Any
) -> None:
    """Choose how to lay out a model on a cluster: the best layout, the reasons, and what to type."""
    if listed:
        known = [f"  {one.name}: {one.gpus:,} {one.accelerator.name}; {one.source}" for one in map(cluster, clusters())]
        head = f"models: {', '.join(models())}\n\nclusters, with the source of links and prices:"
        click.echo("\n".join([head, *known]))
        return
    if model_name is None or cluster_name is None:
        raise CommandError("give --model and --cluster; plab plan --list has their names")
    job = Job(model_name, cluster_name, options)
    found = job.search()
    if options["out"]:
        job.write(found, options["out"])
    if as_json:
        click.echo(json.dumps(job.record(found), indent=2))
    elif why:
        click.echo(_why(found.best, why))
    else:
        for part in job.report(found):
            click.echo(part)


class Job:
    """What is planned, and the words for it."""

    def __init__(self, model_name: str, cluster_name: str, options: dict[str, Any]) -> None:
        self.options = options
        self.shape: Model = model(model_name, options["seq"])
        self.cluster = whole_nodes(cluster(cluster_name, options["gpus"]))
        self.cluster.accelerator.peak_flops_per_s(options["precision"])
        self.batch: int = options["batch"] or max(1, TOKENS_OF_A_STEP // self.shape.seq)
        self.tokens = tokens_of(options["tokens"])
        offload = ("none", "optimizer") if options["offload"] else ("none",)
        self.framework: str | None = options["framework"]
        states = FRAMEWORKS[self.framework] if self.framework else "megatron"
        self.space = Space(precision=(options["precision"],), offload=offload, states=states, framework=self.framework)

    def search(self) -> Found:
        """The search, with a bar on a terminal once it takes a second."""
        with bar("searching") as told:
            return search(self.shape, self.cluster, self.batch, space=self.space, progress=told)

    def flags(self, found: Found) -> list[Flags]:
        """What to type for the best scheme."""
        return all_flags(self.shape, found.best.scheme, self.batch, per_node=self.cluster.gpus_per_node)

    def report(self, found: Found) -> list[str]:
        """The result in words, part by part."""
        parts = [self.head(), self.best(found), self.why(found), self.close(found)]
        if self.options["sensitive"]:
            parts.append(self.sensitivity(found))
        shown = [] if self.options["out"] else [f"\nflags for {one}" for one in self.flags(found)]
        return [*parts, *shown]

    def head(self) -> str:
        """What is planned."""
        shape, of = self.shape, self.cluster
        usual = "" if self.options["batch"] else " (by default)"
        return (
            f"{shape.name}, {shape.parameters / 1e9:,.1f} G parameters, on {of.gpus:,} {of.accelerator.name}"
            f" ({of.name}: {of.nodes:,} node{'s' * (of.nodes > 1)} of {of.gpus_per_node});"
            f" {self.batch:,} sequences of {shape.seq:,} tokens per step{usual}"
        )

    def best(self, found: Found) -> str:
        """The recommendation."""
        best, chip = found.best, self.cluster.accelerator
        of = f", of what {self.framework} runs" if self.framework else ""
        lines = [
            f"\nbest of this model of costs{of}: {words(best.scheme)}",
            f"  step {format_seconds(best.step_s)}, {best.tokens_per_s:,.0f} tokens/s,"
            f" MFU {format_share(best.mfu)}, HFU {format_share(best.hfu)},"
            f" {format_bytes(best.memory.value)} on the fullest rank"
            f" ({chip.name} has {format_bytes(chip.memory_bytes)}, of which {format_bytes(room(self.cluster))} count)",
        ]
        if self.tokens is not None:
            lines.append(
                f"  {text_of(self.tokens, '')} tokens: {best.days(self.tokens):,.1f} days,"
                f" {best.kwh(self.tokens) / 1e3:,.0f} MWh, {best.usd(self.tokens) / 1e6:,.2f} M$"
                " (without failures and restarts)"
            )
        return "\n".join(lines)

    def why(self, found: Found) -> str:
        """The parts of step and memory, and what each other choice would do."""
        best = found.best
        parts = [*best.step.tree(1).splitlines(), *best.memory.tree(1).splitlines()]
        said = reasons(best, self.shape, self.cluster, self.batch, estimate)
        return "\n  ".join(["\nwhy", *parts]) + "\n\n" + "\n  ".join(["with one choice changed", *said])

    def close(self, found: Found) -> str:
        """Ties and runners-up, and how much of the space was looked at."""
        ties, others = found.ties, found.runners_up()
        lines = [
            f"\nruns within {100 * NEAR:.0f} %: {len(found.near) - 1} other schemes, {len(ties)} of them within 1 %"
        ]
        alike = [one for one in ties if axes(one.scheme) == axes(found.best.scheme)]
        for one in sorted(alike[:2] + others, key=lambda one: one.step_s):
            lines.append(f"  {words(one.scheme)}\n    {trade(found.best, one)}")
        lines.append(
            f"looked into {found.opened:,} of {found.families:,} families of schemes: the bounds of the others lie"
            f" over {1 + NEAR:.2f} x the best step; {found.too_large:,} schemes did not fit"
        )
        return "\n".join(lines)

    def sensitivity(self, found: Found) -> str:
        """What other machines would change."""
        with bar("planning again") as told:
            done = iter(range(1, 1 + len(CHANGES)))
            rows = sensitivity(
                self.shape,
                self.cluster,
                self.batch,
                space=self.space,
                found=found,
                step=lambda change: told(next(done), len(CHANGES), found.best.step_s),
            )
        return f"\nif the machine were another\n{text(rows)}"

    def write(self, found: Found, folder: Path) -> None:
        """Writes a file for each framework."""
        folder.mkdir(parents=True, exist_ok=True)
        for one in self.flags(found):
            notes = "" if one.framework == "DeepSpeed" else "".join(f"# {note}\n" for note in one.notes)
            (folder / FILES[one.framework]).write_text(f"{notes}{one.text}\n", encoding="utf-8")
        click.echo(f"wrote {', '.join(FILES.values())} into {folder}", err=True)

    def record(self, found: Found) -> dict[str, Any]:
        """The result as plain data."""
        return {
            "model": self.shape.name,
            "cluster": self.cluster.name,
            "gpus": self.cluster.gpus,
            "batch": self.batch,
            "seq": self.shape.seq,
            "best": _plain(found.best, self.tokens),
            "runners_up": [_plain(one, self.tokens) for one in found.runners_up()],
            "ties": len(found.ties),
            "within": {"share": NEAR, "schemes": len(found.near) - 1},
            "families": found.families,
            "opened": found.opened,
            "priced": found.priced,
            "flags": {one.framework: {"text": one.text, "notes": one.notes} for one in self.flags(found)},
        }


def whole_nodes(of: Cluster) -> Cluster:
    """The same cluster; accelerators that do not fill one node are a node of that size.

    Raises:
        CommandError: its accelerators do not fill its nodes.
    """
    each = of.gpus_per_node
    if of.gpus > each and of.gpus % each:
        less = of.gpus // each * each
        raise CommandError(
            f"--gpus {of.gpus}: {of.name} has {each} accelerators in a node, and that fills no whole nodes;"
            f" the nearest are {less} and {less + each}"
        )
    return replace(of, gpus_per_node=min(each, of.gpus))


def tokens_of(text: str | None) -> float | None:
    """`15T` as 15e12; None for none.

    Raises:
        CommandError: it is no number above 0.
    """
    if text is None:
        return None
    match = re.fullmatch(r"([\d.,_]+(?:e\d+)?)\s*([kMBGT]?)", text.strip())
    try:
        count = float(match[1].replace(",", "").replace("_", "")) * SUFFIXES[match[2]] if match else 0.0
    except ValueError:
        count = 0.0
    if not 0 < count < float("inf"):
        raise CommandError(f"--tokens {text!r}: expected a number above 0, for example 15T or 300B")
    return count


def _plain(one: Estimate, tokens: float | None) -> dict[str, Any]:
    row = {
        "scheme": asdict(one.scheme),
        "step_s": one.step_s,
        "mfu": one.mfu,
        "hfu": one.hfu,
        "tokens_per_s": one.tokens_per_s,
        "memory_bytes": one.memory.value,
        "step": {part.name: part.value for part in one.step},
        "memory": {part.name: part.value for part in one.memory},
    }
    return row if tokens is None else row | {"days": one.days(tokens), "kwh": one.kwh(tokens), "usd": one.usd(tokens)}


def _why(best: Estimate, name: str) -> str:
    try:
        return best.why(name)
    except KeyError as error:
        raise CommandError(f"--why {name!r}: {error.args[0] if error.args else error}") from None


@contextmanager
def bar(what: str) -> Iterator[Callable[[int, int, float], None]]:
    """On a terminal, a line that says how far a search is, once it has taken a second; nothing elsewhere."""
    began_s, shown = time.perf_counter(), False

    def tell(done: int, total: int, best_s: float) -> None:
        nonlocal shown
        if not sys.stderr.isatty() or time.perf_counter() - began_s < BAR_AFTER_S:
            return
        shown = True
        best = "none fits yet" if best_s == float("inf") else f"best step so far {format_seconds(best_s)}"
        click.echo(f"\r{what}: {done:,} of at most {total:,}, {best}".ljust(79), err=True, nl=False)

    try:
        yield tell
    finally:
        if shown:
            click.echo("\r" + " " * 78 + "\r", err=True, nl=False)
