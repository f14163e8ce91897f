"""The options of the training command, and the model and the layout that they describe."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import torch

from parallel_lab.hybrid.layout import Layout
from parallel_lab.hybrid.stages import SCHEDULES
from parallel_lab.model.config import GPTConfig

PRESETS = {
    "tiny": GPTConfig(layers=4, heads=4, width=64, seq=64),
    "small": GPTConfig(layers=6, heads=6, width=384, seq=256),
    "gpt2-124m": GPTConfig(vocab=50_304, layers=12, heads=12, width=768, seq=1024),
    "gpt2-355m": GPTConfig(vocab=50_304, layers=24, heads=16, width=1024, seq=1024),
}
"""The vocabulary of GPT-2, 50,257, is padded to a multiple of 128, as is usual: matrices then fit a GPU's tiles."""
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
BYTES = 256  # the tokens of the text
ABOUT = """Trains a GPT on real text, cut over all ranks: pp stages x dp data x cp context x tp tensor ranks.

The text is the language reference that comes with Python; a byte is a token. Every --save-every steps a checkpoint is
written into --out. A run that finds one there goes on from it, in any layout; in the same layout bit by bit as if it
had never stopped. Ctrl-C ends a run after its step, with a checkpoint."""
EXAMPLES = """examples:
  one process, on the CPU or a GPU
    python -m parallel_lab.hybrid.train --steps 200
  eight ranks of one machine; torchrun starts them again where one dies, and they go on from the last checkpoint
    torchrun --nproc-per-node 8 --max-restarts 3 -m parallel_lab.hybrid.train --pp 2 --dp 2 --tp 2 --steps 100
  a GPT-2 of 124 M parameters in bfloat16 on 8 GPUs, its optimizer sharded
    torchrun --nproc-per-node 8 -m parallel_lab.hybrid.train --preset gpt2-124m --dtype bfloat16 --batch 128
  two machines: the same line on both; 10.0.0.1 is an address of the first
    torchrun --nnodes 2 --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint 10.0.0.1:29400 --rdzv-id run1 \\
        -m parallel_lab.hybrid.train --pp 2 --dp 4 --tp 2 --out /shared/run1
  Slurm, two nodes with 8 GPUs each
    srun --nodes 2 --ntasks-per-node 8 --gpus-per-node 8 --kill-on-bad-exit=1 \\
        python -m parallel_lab.hybrid.train --pp 2 --tp 2 --out /shared/run1

exit codes: 0 done; 1 the run failed; 2 the arguments do not fit; 130 stopped by Ctrl-C, with a checkpoint
(torchrun's own is 1 for all of these but 0)"""


class Wrong(ValueError):
    """The arguments do not fit together or to this world."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise Wrong(f"{message} (--help lists the options)")


def parser() -> argparse.ArgumentParser:
    """What reads the command line; it raises `Wrong` where another parser would exit."""
    made = _Parser(
        prog="python -m parallel_lab.hybrid.train",
        description=ABOUT,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    _add_layout(made.add_argument_group("layout"))
    _add_model(made.add_argument_group("model (a preset, and what replaces its numbers)"))
    _add_training(made.add_argument_group("training"))
    _add_run(made.add_argument_group("the run"))
    return made


def _add_layout(group) -> None:
    group.add_argument("--pp", type=_count, default=1, help="pipeline stages (1)")
    group.add_argument("--dp", type=_count, help="data ranks (what the other axes leave of the world)")
    group.add_argument("--cp", type=_count, default=1, help="context ranks, which share each sequence (1)")
    group.add_argument("--tp", type=_count, default=1, help="tensor ranks, which share each layer (1)")
    group.add_argument("--ep", type=_count, default=1, help="ranks that share the experts, out of the dp x cp (1)")
    group.add_argument("--zero", type=int, choices=(0, 1, 3), default=1, help="what dp x cp ranks shard (1)")
    group.add_argument("--schedule", choices=list(SCHEDULES), default="1f1b", help="of the pipeline (1f1b)")
    group.add_argument("--microbatches", type=_count, help="a step and data rank (2 pp, and 1 where pp is 1)")
    group.add_argument("--context", choices=("ring", "ulysses"), default="ring", help="how attention crosses cp (ring)")
    group.add_argument("--sequence", action="store_true", help="shard activations over tp as well")
    group.add_argument("--recompute", action="store_true", help="keep a stage's inputs only, and compute it again")


def _add_model(group) -> None:
    group.add_argument("--preset", choices=list(PRESETS), default="tiny", help="tiny by default")
    for name in ("layers", "heads", "width", "vocab"):
        group.add_argument(f"--{name}", type=_count)
    group.add_argument("--seq", type=_count, help="tokens of a sequence")
    group.add_argument("--experts", type=_count, help="feed-forward parts of a block")
    group.add_argument("--active-experts", type=_count, help="how many of them a token goes through (2)")
    group.add_argument("--dropout", type=float)


def _add_training(group) -> None:
    group.add_argument("--steps", type=_count, default=100, help="in all, those before a restart included (100)")
    group.add_argument("--batch", type=_count, default=32, help="sequences of a step, over all ranks (32)")
    group.add_argument("--lr", type=_positive, default=1e-3, help="AdamW's learning rate (0.001)")
    group.add_argument("--clip", type=_positive, default=1.0, help="the largest norm of the gradient (1)")
    group.add_argument("--seed", type=int, default=0, help="of weights, data and dropout (0)")
    group.add_argument("--dtype", choices=list(DTYPES), default="float32", help="of products; weights are float32")


def _add_run(group) -> None:
    group.add_argument("--out", type=Path, default=Path("build/train"), help="folder of the checkpoints (build/train)")
    group.add_argument("--save-every", type=_count, default=50, metavar="STEPS", help="a checkpoint each (50)")
    group.add_argument("--log-every", type=_count, default=10, metavar="STEPS", help="look at the loss (10)")
    group.add_argument("--peak-tflops", type=_positive, metavar="TFLOPS", help="of a card, for MFU; some are known")
    group.add_argument(
        "--rendezvous-timeout", type=_positive, default=300.0, metavar="SECONDS", help="to wait for other ranks (300)"
    )


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1")
    return int(text)


def _positive(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = -1.0
    if not 0 < found < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return found


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options.

    Raises:
        Wrong: there is no such option, or a value is not what it takes.
    """
    options = parser().parse_args(arguments)
    if options.microbatches is None:
        options.microbatches = 2 * options.pp if options.pp > 1 else 1
    return options


def config_of(options: argparse.Namespace) -> GPTConfig:
    """The model that the options describe.

    Raises:
        Wrong: there is none.
    """
    names = ("layers", "heads", "width", "vocab", "seq", "experts", "active_experts", "dropout")
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    if given.get("experts", 1) > 1:
        given.setdefault("active_experts", min(2, given["experts"]))
    try:
        config = GPTConfig(**{**vars(PRESETS[options.preset]), **given})
    except ValueError as error:
        raise Wrong(str(error)) from None
    if config.vocab < BYTES:
        raise Wrong(f"--vocab {config.vocab}: the text is made of bytes, so that there are {BYTES} tokens at least")
    return config


def layout_of(options: argparse.Namespace, config: GPTConfig, world: int) -> Layout:
    """The layout that the options describe; without --dp the data ranks are what the other axes leave.

    Raises:
        Wrong: the world is no product of the axes, or the model, batch or sequence does not divide by them.
    """
    others = options.pp * options.cp * options.tp
    if options.dp is None and world % others:
        axes = f"pp={options.pp} x cp={options.cp} x tp={options.tp} = {others}"
        raise Wrong(f"{axes} does not divide the {world} ranks that there are: start a multiple of {others}")
    try:
        layout = Layout(options.pp, options.dp or world // others, options.cp, options.tp, options.ep)
        sizes = {"seq": config.seq, "batch": options.batch, "microbatches": options.microbatches}
        layout.check(config, world, context=options.context, **sizes)
    except ValueError as error:
        raise Wrong(str(error)) from None
    return layout
