"""Six kinds of data for one small GPT: prose, code, a dialogue, pictures, arithmetic, a melody. No download.

A language model is a model of sequences of tokens, and does not know what they stand for. All six are bytes here, so
that one `GPTConfig` fits all: only the data differ.

    prose        the pages of CPython's help, as in `data.text`
    code         modules of the standard library, in Python
    dialogue     what somebody types at Python's prompt and what it answers: the examples in scikit-learn's docstrings
    digits       handwritten digits of 8 x 8 pixels (`model.digits`), row by row; a byte is a gray value from 0 to 16
    arithmetic   sums of two numbers below 20, drawn by a seed
    melody       six old tunes in twelve keys; a byte is an eighth note, its pitch in half-tones, or a tie

The last tenth of each is held out. The melody's held-out part are the same tunes in other orders and keys, so it asks
less than the others do. Versions of Python and scikit-learn differ a little in the first three.
"""

import random
import re
from collections.abc import Callable, Iterable
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

import parallel_lab.model
from parallel_lab.model.data import VALIDATION, cut, text, tokenize

MODULES = ("argparse", "ast", "calendar", "configparser", "csv", "dataclasses", "difflib", "pathlib", "textwrap")
IMAGE_MARK = 17  # stands before each picture; a gray value is at most 16
PIXELS = 64
TIE, LOWEST = "~", 60  # the byte of middle C; a half-tone up is one more
TUNES = {
    "Frere Jacques": "0 2 4 0 0 2 4 0 4 5 7~ 4 5 7~ 7.9.7.5.4 0 7.9.7.5.4 0 0 -5 0~ 0 -5 0~",
    "Twinkle, twinkle": "0 0 7 7 9 9 7~ 5 5 4 4 2 2 0~ 7 7 5 5 4 4 2~ 7 7 5 5 4 4 2~ 0 0 7 7 9 9 7~ 5 5 4 4 2 2 0~",
    "Ode to Joy": "4 4 5 7 7 5 4 2 0 0 2 4 4 2 2~ 4 4 5 7 7 5 4 2 0 0 2 4 2 0 0~",
    "Mary had a little lamb": "4 2 0 2 4 4 4~ 2 2 2~ 4 7 7~ 4 2 0 2 4 4 4 4 2 2 4 2 0~",
    "London Bridge": "7 9 7 5 4 5 7~ 2 4 5~ 4 5 7~ 7 9 7 5 4 5 7~ 2~ 7~ 4 0~",
    "Au clair de la lune": "0 0 0 2 4~ 2~ 0 4 2 2 0~ 0 0 0 2 4~ 2~ 0 4 2 2 0~ 2 2 2 2 -3~ -3~ 2 0 -1 -3 -5~",
}
"""Quarter notes as half-tones above the key note; `~` makes a half note, and dots join eighths."""


@cache
def tokens(kind: str, split: str = "train") -> Tensor:
    """All of a kind, uint8 (length,): `train` is the first 90 %, `validation` the last 10 %.

    Raises:
        ValueError: there is no such kind or split.
    """
    if kind not in KINDS:
        raise ValueError(f"there is no kind {kind!r}: expected one of {', '.join(KINDS)}")
    return cut(KINDS[kind](), split, "validation", VALIDATION)


def frequency_bits(kind: str) -> float:
    """Bits per byte of the held-out part for a model that knows only how often each byte comes."""
    seen = tokens(kind).long().bincount(minlength=256).double() + 1
    return -(seen / seen.sum()).log2()[tokens(kind, "validation").long()].mean().item()


def readable(kind: str, sequence: Iterable[int]) -> str:
    """A sequence for people: text as it is, pixels as rows of shades, a melody as names of notes."""
    if kind == "digits":
        shades = "".join(" .:-=+*#%@"[min(9, each * 10 // IMAGE_MARK)] for each in sequence if each != IMAGE_MARK)
        return "\n".join(shades[row : row + 8] for row in range(0, len(shades), 8))
    if kind == "melody":
        return " ".join(_note(each) for each in sequence)
    return bytes(sequence).decode("utf-8", "replace")


def prompt(kind: str) -> list[int]:
    """What a sample begins with."""
    if kind == "digits":
        return [IMAGE_MARK]
    begun = {"code": "def ", "dialogue": ">>> ", "arithmetic": ";", "melody": "\n"}
    return list(begun.get(kind, "The ").encode())


def _code() -> Tensor:
    return tokenize("\n\n".join(_source(name).read_text(encoding="utf-8") for name in MODULES))


def _dialogue() -> Tensor:
    """Every example with its answers; a blank line ends one."""
    folder = _source("sklearn.metrics").parent
    sources = (file.read_text(encoding="utf-8") for file in sorted(folder.glob("*.py")))
    lines = re.compile(r"^ *>>> .*(?:\n *[^\s\"].*)*", re.MULTILINE)
    examples = [re.sub("^ +", "", each, flags=re.MULTILINE) for source in sources for each in lines.findall(source)]
    return tokenize("\n\n".join(examples))


def _source(module: str) -> Path:
    found = find_spec(module)
    if found is None or found.origin is None:
        raise FileNotFoundError(f"this Python has no source of {module}")
    return Path(found.origin)


def _digits() -> Tensor:
    splits = (parallel_lab.model.digit_images(split) for split in ("train", "test"))  # scikit-learn is loaded here
    images = torch.cat([images for images, _ in splits])  # (count, 64)
    marks = torch.full((len(images), 1), IMAGE_MARK, dtype=torch.uint8)
    return torch.cat([marks, (images * 16).round().to(torch.uint8)], 1).flatten()


def _arithmetic() -> Tensor:
    dice = random.Random(0)
    pairs = ((dice.randrange(20), dice.randrange(20)) for _ in range(20_000))
    return tokenize(";" + "".join(f"{a}+{b}={a + b};" for a, b in pairs))


def _melody() -> Tensor:
    dice, written = random.Random(0), []
    for _ in range(600):
        notes, key = TUNES[dice.choice(sorted(TUNES))], dice.randrange(12)
        written.append("".join(_eighths(each, key) for each in notes.split()))
    return tokenize("\n" + "\n".join(written))


def _eighths(group: str, key: int) -> str:
    """`7` is a quarter, `7~` a half, `7.9` two eighths: a byte for each eighth."""
    if "." in group:
        return "".join(chr(LOWEST + key + int(each)) for each in group.split("."))
    return chr(LOWEST + key + int(group.rstrip(TIE))) + TIE * (3 if group.endswith(TIE) else 1)


def _note(byte: int) -> str:
    if chr(byte) in (TIE, "\n"):
        return {TIE: TIE, "\n": "|"}[chr(byte)]
    names = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
    octave, step = divmod(byte - LOWEST, 12)
    return f"{names[step]}{4 + octave}"


KINDS: dict[str, Callable[[], Tensor]] = {
    "prose": lambda: torch.cat([text("train"), text("validation")]),
    "code": _code,
    "dialogue": _dialogue,
    "digits": _digits,
    "arithmetic": _arithmetic,
    "melody": _melody,
}
