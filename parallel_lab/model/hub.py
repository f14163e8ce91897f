"""Text from the Hugging Face hub, for those who have a network and `datasets`; nothing in the course needs it."""

import importlib
from types import ModuleType

from torch import Tensor

from parallel_lab.model.data import tokenise


def _datasets() -> ModuleType:
    try:
        return importlib.import_module("datasets")
    except ModuleNotFoundError as error:
        if error.name != "datasets":  # it is there, and something that it needs is not
            raise
        raise ModuleNotFoundError(
            "hub_text needs Hugging Face datasets: pip install datasets", name="datasets"
        ) from error


def hub_text(name: str, split: str = "train", column: str = "text", **options) -> Tensor:
    """The rows of one column as bytes, an empty line between rows, uint8 (length,): for `text_batches(data=...)`.

    `options` go to `datasets.load_dataset(name, split=split, ...)`. Raises ModuleNotFoundError where `datasets` is not
    installed, and KeyError naming the columns where `column` is none of them.
    """
    rows = _datasets().load_dataset(name, split=split, **options)
    if column not in rows.column_names:
        raise KeyError(f"{name} has no column {column!r}; it has {', '.join(rows.column_names)}")
    return tokenise("\n\n".join(rows[column]))
