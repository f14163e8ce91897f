"""The training command: a GPT on real text, on any layout, on one machine or several.

    torchrun --nproc-per-node 8 -m parallel_lab.hybrid.train --pp 2 --dp 2 --tp 2 --steps 100

Under torchrun, under `srun`, or alone; `--help` has the options and examples. What it does is `parallelize`, `load` and
`train_step` in a loop. Around them stands what a run on many machines needs: ranks that meet or say who is missing
(`place.py`), a sentence from the rank at fault in place of a traceback from each, checkpoints from which a restarted
run goes on bit by bit, and an end by Ctrl-C on which all ranks agree. In bfloat16 the products are computed in it
(`torch.autocast`), while weights, moments and checkpoints stay in float32.
"""

import argparse
import hashlib
import os
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from parallel_lab import compat
from parallel_lab.agree.problem import agree
from parallel_lab.hybrid import place
from parallel_lab.hybrid.apply import parallelize
from parallel_lab.hybrid.checkpoint import latest, load, save
from parallel_lab.hybrid.failures import DONE, FAILED, STOPPED, WRONG, explain, tell
from parallel_lab.hybrid.options import DTYPES, Wrong, config_of, layout_of, parse
from parallel_lab.hybrid.parallel import Parallel
from parallel_lab.hybrid.progress import Bar, Pace, peak_flops, table
from parallel_lab.hybrid.step import Outcome, train_step
from parallel_lab.model.data import text_batches
from parallel_lab.model.formulas import flops_per_token, parameter_count
from parallel_lab.model.reference import build
from parallel_lab.runtime import rank_device
from parallel_lab.runtime.group import member
from parallel_lab.systems.resilience import folder
from parallel_lab.trace.record import recorder
from parallel_lab.trace.units import format_bytes, format_seconds


class Run:
    """One training run on this rank: what it trains, what on, and how far it is."""

    def __init__(self, options: argparse.Namespace, held: ExitStack) -> None:
        self.options, self.config = options, config_of(options)
        self.layout = layout_of(options, self.config, dist.get_world_size())
        self.dtype, self.device = DTYPES[options.dtype], rank_device()
        self.first = dist.get_rank() == 0
        self.done = 0  # steps, those of earlier runs included
        self.parallel = self._laid_out(held)

    def _laid_out(self, held: ExitStack) -> Parallel:
        o = self.options
        _agreed(lambda: _writable(o.out) if self.first else None)
        _agreed(lambda: _shared(o.out))
        patience_s = min(10.0, o.rendezvous_timeout)
        _agreed(lambda: held.enter_context(folder.training(o.out, patience_s)) if self.first else None)
        names = "zero", "schedule", "microbatches", "context", "sequence", "recompute", "clip", "seed", "lr"
        settings: dict[str, Any] = {name: getattr(o, name) for name in names}
        if self.device.type == "cuda":
            settings["fused"] = True
        try:
            return parallelize(build(self.config, o.seed), self.layout, **settings)
        except ValueError as error:
            raise Wrong(str(error)) from None

    def resume(self) -> str:
        """Goes on from the latest checkpoint in --out, where there is one, and says so."""
        found = [latest(self.options.out)]
        dist.broadcast_object_list(found, src=0)  # what rank 0 sees counts; `load` says who does not see it
        if found[0] is None:
            return ""
        progress = load(self.parallel, self.options.out)
        self.done = progress.step
        for group in self.parallel.optimizer.param_groups:
            group["lr"] = self.options.lr  # what this command line says counts
        text = f"going on from step {progress.step}, {self.options.out}"
        here = self.decides()
        changed = {name: was for name, was in progress.data.items() if was != here.get(name)}
        text += "".join(f"; --{name} is {here.get(name)}, and was {was}" for name, was in changed.items())
        if changed.keys() & {"seed", "batch", "seq"}:
            text += ": other sequences follow"
        return text if progress.same_layout else f"{text}; saved by another layout, so dropout draws other masks"

    def decides(self) -> dict[str, float | str]:
        """The options that decide, beside layout and size of the model, what the next steps are."""
        given = {name: getattr(self.options, name) for name in ("seed", "batch", "lr", "clip", "dtype")}
        return given | {"seq": self.config.seq, "dropout": self.config.dropout}

    def batches(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """The global batches that are still to come, the same on every rank."""
        o = self.options
        yield from text_batches(self.config.seq, o.batch, o.steps - self.done, seed=o.seed, start=self.done)

    def step(self, tokens: torch.Tensor, targets: torch.Tensor) -> Outcome:
        """One step."""
        if self.device.type == "cuda":
            tokens, targets = tokens.pin_memory(), targets.pin_memory()  # so that the copy hides behind the step before
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            outcome = train_step(self.parallel, tokens, targets)
        self.done += 1
        return outcome

    def save(self, outcome: Outcome) -> None:
        """Writes a checkpoint; not of a run whose last step came to nothing."""
        if not outcome.norm.isfinite():
            raise ValueError(f"the norm of step {self.done} is {outcome.norm.item()}: nothing was saved. Lower --lr")
        save(self.parallel, self.options.out, step=self.done, data=self.decides())


def train(options: argparse.Namespace) -> int:
    """Trains to the last step, or until Ctrl-C; returns the exit code. All ranks call it.

    Raises:
        Wrong: the options do not fit to the world.
        OSError: --out cannot be written.
    """
    with ExitStack() as held:
        return _train(options, held)


def _train(options: argparse.Namespace, held: ExitStack) -> int:
    run = Run(options, held)
    bar = Bar(options.steps) if run.first else Bar(options.steps, open(os.devnull, "w"))  # noqa: SIM115 (to the end)
    bar.say(_headline(run))
    if resumed := run.resume():
        bar.say(resumed)
    if run.done >= options.steps:
        bar.say(f"step {run.done} is there already; to go on: --steps {2 * run.done}, or another --out")
        return DONE
    with _ctrl_c() as pressed:
        stopped = _loop(run, bar, pressed)
    if stopped:
        bar.say(f"stopped after step {run.done}, saved in {options.out}; the same command goes on from there")
    return STOPPED if stopped else DONE


def _loop(run: Run, bar: Bar, pressed: Callable[[], bool]) -> bool:
    """Takes the steps, with a look and a checkpoint every so often; whether Ctrl-C ended it."""
    o, stopped = run.options, False
    peak = peak_flops(run.device, run.dtype, o.peak_tflops)
    world = run.layout.world
    pace = Pace(o.batch * run.config.seq, flops_per_token(run.config), peak and peak * world)
    before, began, began_s = Counter(recorder().sent_by_axis), run.done, time.perf_counter()
    for batch in run.batches():
        stop = _any(pressed())
        outcome = run.step(*batch)
        pace.step()
        stopped = stop()
        last = stopped or run.done == o.steps
        if last or run.done % o.log_every == 0 or run.done == began + 1:
            bar.show(run.done, f"loss {outcome.loss.item():.4f}", f"norm {outcome.norm.item():.3f}", pace.lately())
        if last or run.done % o.save_every == 0:
            run.save(outcome)
        if stopped:
            break
    sent = Counter(recorder().sent_by_axis)
    sent.subtract(before)
    steps = run.done - began
    took, speed = format_seconds(time.perf_counter() - began_s), pace.overall()
    bar.say(f"{steps} steps in {took}, checkpoints included{', ' if speed else ''}{speed}")
    bar.say(_traffic(run, sent, steps))
    bar.say(f"weights {fingerprint(run.parallel)}")
    return stopped


def _any(here: bool) -> Callable[[], bool]:
    """Starts to ask all ranks whether one of them is to stop; the answer is the same on all of them."""
    flag = torch.tensor([int(here)], dtype=torch.int32)
    work = dist.all_reduce(flag, dist.ReduceOp.MAX, async_op=True) if dist.get_world_size() > 1 else None

    def answer() -> bool:
        if work:
            work.wait()
        return bool(flag.item())

    return answer


@contextmanager
def _ctrl_c() -> Iterator[Callable[[], bool]]:
    """Inside, Ctrl-C is only noted; gives the question whether it was pressed."""
    pressed: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: pressed.append(number))
    try:
        yield lambda: bool(pressed)
    finally:
        signal.signal(signal.SIGINT, before)


def _headline(run: Run) -> str:
    o, layout = run.options, run.layout
    axes = " ".join(f"{axis}={getattr(layout, axis)}" for axis in ("pp", "dp", "cp", "tp", "ep"))
    ranks = f"{layout.world} rank{'s' * (layout.world > 1)}"
    sizes = f"{parameter_count(run.config):,} parameters, {o.batch} x {run.config.seq} tokens a step"
    return f"{ranks}, {axes}, zero={o.zero}, {o.dtype} on {run.device.type}; {sizes}; checkpoints in {o.out}"


def _traffic(run: Run, sent: Counter[str], steps: int) -> str:
    """The bytes that left all ranks, by axis; checkpoints are in them."""
    everyone: list[Any] = [None] * run.layout.world
    dist.all_gather_object(everyone, dict(sent))
    total = sum((Counter(each) for each in everyone), Counter())
    if not total:
        return "no bytes were sent"
    rows = [("bytes sent by", "all ranks", "a step")]
    for axis in sorted(total, key=lambda name: -total[name]):
        name = f"axis {axis}" if axis else "no axis: norm, loss, checkpoints"
        rows.append((name, format_bytes(total[axis]), format_bytes(total[axis] / steps)))
    return table(rows)


def fingerprint(parallel: Parallel) -> str:
    """A digest of all weights as the ranks hold them: equal where two runs of one layout ended bit by bit alike."""
    digest = hashlib.sha256()
    for name, parameter in sorted(parallel.named_parameters().items()):
        digest.update(name.encode() + parameter.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    everyone: list[Any] = [None] * parallel.layout.world
    dist.all_gather_object(everyone, digest.hexdigest())
    return hashlib.sha256("".join(everyone).encode()).hexdigest()[:16]


def _agreed(action: Callable[[], None]) -> None:
    """Calls `action`; where it raises OSError on some rank, all ranks stop."""
    problem = None
    try:
        action()
    except OSError as error:
        problem = error
    agree(problem, member(None), rank_device())


def _writable(out: Path) -> None:
    if (out / folder.INDEX).is_file():
        text = f"rank 0: --out {out} is itself a checkpoint. To go on from the newest of a run, name the folder above"
        raise OSError(f"{text}; to go on from an older one, copy it into a new folder, and name that")
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe = out / f".probe-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OSError(f"rank 0 cannot write into --out {out}: {error.strerror}. Name another folder") from None


def _shared(out: Path) -> None:
    if not out.is_dir():
        text = f"rank {dist.get_rank()} on {socket.gethostname()} does not see --out {out}, which rank 0 has made"
        raise OSError(f"{text}: on several hosts, name a folder that all of them share")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code. Inside `launch`, where the ranks have met, errors are raised instead.

    Raises:
        Wrong: inside `launch`, the arguments do not fit.
        Exception: inside `launch`, whatever a rank raises.
    """
    if dist.is_initialized():
        return train(parse(arguments))
    problem, options, timeout_s = None, None, 60.0
    try:
        options = parse(arguments)
        timeout_s = options.rendezvous_timeout
    except Wrong as error:
        problem = error
    except SystemExit as end:  # --help
        return int(end.code or 0)
    before = dict(os.environ)
    os.environ.update(place.variables(before))
    try:
        return _meet_and_train(options, problem, timeout_s)
    finally:  # a rank that this process starts later, as `srun` does, must find its own place
        os.environ.clear()
        os.environ.update(before)


def _meet_and_train(options: argparse.Namespace | None, problem: Wrong | None, timeout_s: float) -> int:
    store: compat.Store | None = None
    try:
        store = place.join(timeout_s)
        recorder().enabled = False  # bytes are counted all the same, and a run may be long
        if problem:
            raise problem
        assert options is not None
        code = train(options)
        dist.destroy_process_group()
        return code
    except place.Absent as error:
        return tell(None, str(problem or error), WRONG if problem else FAILED)
    except KeyboardInterrupt:
        return tell(store, "stopped before the first step: nothing was changed", STOPPED)
    except Exception as error:
        return explain(store, error, options)


if __name__ == "__main__":
    ended = main()
    sys.stdout.flush()
    os._exit(ended)  # threads of gloo and NCCL may outlive the group, and Python would clean up beside them
