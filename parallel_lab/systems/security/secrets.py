"""Secrets in notebooks and in the environment: how they get out, a scanner, and where they should stand.

A notebook keeps what it printed. A token in a cell, in an output or in a traceback goes where the notebook goes: into
git, into a mail, onto a web page. An environment variable is inherited by every process that a job starts, stands in
`/proc/PID/environ` for every process of the same user, and is printed by many a tool that reports its settings.

The defense: a secret stands in a file that its owner alone may read, is read where it is used, and has a type that does
not print it; children get an environment without secrets; a scanner looks at a notebook before it is committed.

What this does not stop. A process of the same user, or root, reads the file too. The scanner knows forms: a password
that is a plain word, a key in base64 inside another text, or a picture of it, passes. What was committed once stays in
the history of git: only a new secret helps.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from math import log2
from pathlib import Path
from typing import Any

PATTERNS = {
    "AWS access key": r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    "GitHub token": r"\bgh[pousr]_[0-9A-Za-z]{36,}\b",
    "Hugging Face token": r"\bhf_[0-9A-Za-z]{30,}\b",
    "private key": r"-----BEGIN [A-Z ]*PRIVATE KEY-----(?:[\s\S]*?-----END [A-Z ]*PRIVATE KEY-----)?",
    "JSON web token": r"\beyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]+",
    "password in an address": r"(?<=://)[^\s/:@]+:[^\s/@]+(?=@)",
}
ASSIGNED = re.compile(
    r"""(?i)\b\w*(?:secret|token|passw(?:or)?d|api_?key|access_?key)\w*["']?\s*[:=]\s*["']?([^\s"',;)}]{8,})"""
)
NAMES = re.compile(r"(?i)secret|token|passw|api_?key|access_?key|private_?key|credential")
LEAST_BITS = 3.0  # of entropy a character: what looks like a word or a placeholder is left alone


@dataclass(frozen=True)
class Finding:
    """A secret, and where it stands; the text of it shows its beginning only.

    Attributes:
        cell: the number of the cell.
        place: `source`, `output` or `metadata`.
        kind: what it looks like.
        text: the secret.
    """

    cell: int
    place: str
    kind: str
    text: str

    def __str__(self) -> str:
        return f"cell {self.cell}, {self.place}: {self.kind}, {self.text[:4]}… ({len(self.text)} characters)"

    __repr__ = __str__


def entropy(text: str) -> float:
    """Bits a character, by how often each character occurs in the text."""
    return -sum(count / len(text) * log2(count / len(text)) for count in Counter(text).values())


def secrets_in(text: str) -> list[tuple[str, str]]:
    """Kind and text of each secret: of a known form, or assigned to a telling name and random enough."""
    found = [(kind, match.group()) for kind, form in PATTERNS.items() for match in re.finditer(form, text)]
    for match in ASSIGNED.finditer(text):
        value = match.group(1)
        fresh = not any(value in known or known in value for _, known in found)
        if fresh and entropy(value) > LEAST_BITS and re.search(r"\d", value) and re.search("[A-Za-z]", value):
            found.append(("assigned secret", value))
    return found


def _texts(value: Any) -> Iterator[str]:
    """All strings in a piece of JSON; a list of lines is one string."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list) and all(isinstance(each, str) for each in value):
        yield "".join(value)
    elif isinstance(value, Mapping | list):
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(each)


def scan(notebook: Mapping[str, Any]) -> list[Finding]:
    """The secrets in all cells: what was typed, what was printed or raised, and what stands in metadata."""
    found = []
    for number, cell in enumerate(notebook["cells"]):
        for place, part in (("source", "source"), ("output", "outputs"), ("metadata", "metadata")):
            for text in _texts(cell.get(part, "")):
                found += [Finding(number, place, kind, secret) for kind, secret in secrets_in(text)]
    return list(dict.fromkeys(found))


def scan_file(path: str | os.PathLike) -> list[Finding]:
    """The secrets in a notebook file."""
    return scan(json.loads(Path(path).read_text(encoding="utf-8")))


def cleaned(notebook: Mapping[str, Any]) -> dict[str, Any]:
    """A copy with `[removed]` in place of each secret that `scan` finds."""
    words = sorted({finding.text for finding in scan(notebook)}, key=len, reverse=True)

    def without(value: Any) -> Any:
        if isinstance(value, str):
            for word in words:
                value = value.replace(word, "[removed]")
            return value
        if isinstance(value, list) and all(isinstance(each, str) for each in value):
            return without("".join(value)).splitlines(keepends=True)
        if isinstance(value, list):
            return [without(each) for each in value]
        return {key: without(each) for key, each in value.items()} if isinstance(value, Mapping) else value

    return without(deepcopy(dict(notebook)))


def environment_of(pid: int) -> dict[str, str]:
    """The environment that a process was started with, as any process of the same user may read it (Linux)."""
    entries = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return dict(each.decode(errors="replace").split("=", 1) for each in entries if b"=" in each)


def without_secrets(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment for a child: without what has a telling name, or a value of a known form."""
    return {
        name: value for name, value in environment.items() if not NAMES.search(name) and not secrets_in(value)
    }  # fmt: skip


class Secret:
    """A text that prints as stars; `reveal()` gives it. Do not pickle it, log it, or put it into an exception."""

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The secret: call it where it is used."""
        return self._text

    def __repr__(self) -> str:
        return "Secret(***)"

    def __reduce__(self) -> tuple:
        raise TypeError("a secret is not pickled: read it anew where it is needed")


def read_secret(path: str | os.PathLike) -> Secret:
    """The secret in a file that its owner alone may read.

    Raises:
        PermissionError: the group or others may read or write it.
    """
    path = Path(path)
    if wide := path.stat().st_mode & 0o077:
        raise PermissionError(f"{path.name}: mode has {wide:03o} for others than its owner; chmod 600 first")
    return Secret(path.read_text(encoding="utf-8").strip())
