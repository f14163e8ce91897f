"""Samples as columns: Parquet to keep them, Arrow to work on them.

A table's values stand column by column, in groups of rows. Who needs two columns of twenty reads two; each column is
compressed by itself; and each group has least and greatest values, so that a filter skips groups without reading them.
Parquet is compressed and encoded on the medium. Arrow's format is what stands in memory, so a file of it can be mapped
and used as it is.

That is for preparing, filtering and counting. A training loop that reads whole samples from front to back gains nothing
by columns; many datasets are published as Parquet nevertheless.
"""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import compute


def to_parquet(columns: Mapping[str, Sequence[Any]], *, rows_per_group: int = 1000) -> bytes:
    """The columns as a Parquet file, compressed by zstd."""
    out = io.BytesIO()
    pq.write_table(pa.table(dict(columns)), out, row_group_size=rows_per_group, compression="zstd")
    return out.getvalue()


def to_arrow(columns: Mapping[str, Sequence[Any]]) -> bytes:
    """The columns as an Arrow file, as they stand in memory."""
    table, out = pa.table(dict(columns)), io.BytesIO()
    with pa.ipc.new_file(out, table.schema) as file:
        file.write_table(table)
    return out.getvalue()


def from_parquet(data: bytes, columns: Sequence[str] | None = None, where: Any = None) -> dict[str, list[Any]]:
    """Some columns of a Parquet file, of the rows for which `where` holds: `[("length", ">", 100)]`."""
    return pq.read_table(pa.BufferReader(data), columns=columns, filters=where).to_pydict()


def from_arrow(data: bytes) -> dict[str, list[Any]]:
    """The columns of an Arrow file."""
    with pa.ipc.open_file(pa.BufferReader(data)) as file:
        return file.read_all().to_pydict()


def bytes_read(data: bytes, columns: Sequence[str]) -> int:
    """How many bytes of a Parquet file these columns take."""
    groups = pq.ParquetFile(pa.BufferReader(data)).metadata
    parts = [groups.row_group(g).column(c) for g in range(groups.num_row_groups) for c in range(groups.num_columns)]
    return sum(part.total_compressed_size for part in parts if part.path_in_schema.split(".")[0] in columns)


def mean(data: bytes, column: str) -> float:
    """The mean of a column of a Parquet file, computed in Arrow, without a Python object a row."""
    values = pq.read_table(pa.BufferReader(data), columns=[column])[column]
    return compute.mean(values).as_py()  # pyright: ignore[reportAttributeAccessIssue] (made at import)
