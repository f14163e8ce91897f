"""How a run of many ranks ends when something is wrong: in a sentence, from the rank at fault, once.

Where one rank fails, all others lose their connections to it, or wait in a barrier that it never reaches. Their errors
say nothing about the cause, so they are silent but for one rank of each host. Where all ranks find the same fault, as
in the arguments, the first to say so claims the sentence in the store that they share, and the others wait until it
stands there: torchrun ends all ranks as soon as one has ended.
"""

import argparse
import hashlib
import json
import os
import re
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path

from parallel_lab import compat
from parallel_lab.hybrid.checkpoint import latest
from parallel_lab.hybrid.options import Wrong

DONE, FAILED, WRONG, STOPPED = 0, 1, 2, 130  # exit codes
LOST = ("gloo", "Connection closed by peer", "Connection reset", "NCCL", "another rank refused")  # of other ranks


def explain(store: compat.Store | None, error: Exception, options: argparse.Namespace | None) -> int:
    """Says in a sentence what ended this rank; where another rank has failed, that it has. Returns the exit code."""
    text = str(error)
    if "cannot go on" in text or (isinstance(error, RuntimeError) and any(word in text for word in LOST)):
        if os.environ["LOCAL_RANK"] == "0":
            found = latest(options.out) if options else None
            after = f"; the last checkpoint is {found}" if found else ""
            why = text.strip().splitlines()[0]
            print(f"rank {os.environ['RANK']} lost another rank{after} ({why})", file=sys.stderr, flush=True)
        return FAILED
    if isinstance(error, Wrong | OSError | ValueError):
        return tell(store, text, WRONG if isinstance(error, Wrong) else FAILED)
    return tell(store, "".join(traceback.format_exception(error)), FAILED)


def tell(store: compat.Store | None, text: str, code: int) -> int:
    """Prints `text`, on one rank where several have the same to say, and returns `code`; the others wait for it."""
    rank, what = os.environ["RANK"], re.sub(r"^rank \d+:? ", "", text)
    key = f"said {hashlib.sha256(what.encode()).hexdigest()}"
    mine = os.environ["LOCAL_RANK"] == "0" if store is None else _first(store, key, code)
    if mine:
        print(text if text.startswith(f"rank {rank}") else f"rank {rank}: {text}", file=sys.stderr, flush=True)
        _for_torchrun(text)
    if store is None:
        time.sleep(0.0 if mine else 1.0)  # torchrun ends all ranks once the first has ended
        return code
    with suppress(RuntimeError):  # the first rank has ended, and the store with it
        store.set(f"{key}, all of it", "") if mine else store.wait([f"{key}, all of it"])
    return code


def _for_torchrun(text: str) -> None:
    """Leaves the sentence where torchrun looks for the cause, so that the table that it prints in the end has it."""
    if path := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        more = {"py_callstack": text, "timestamp": str(int(time.time()))}
        Path(path).write_text(json.dumps({"message": {"message": text, "extraInfo": more}}), encoding="utf-8")


def _first(store: compat.Store, key: str, code: int) -> bool:
    """Whether this rank is the first to say it. Where the store is gone, rank 0 has said what is wrong on all ranks."""
    try:
        return store.add(key, 1) == 1
    except RuntimeError:
        return code != WRONG
