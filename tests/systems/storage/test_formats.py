"""Formats keep every byte, say where it lies, and are read by the libraries that define them."""

import io
import itertools
import json
import tarfile

import numpy as np
import pyarrow.parquet as pq
import pytest
import webdataset as wds
from pyarrow import feather

from parallel_lab.systems.storage import Local, Memory, columns, formats
from parallel_lab.systems.storage.reader import unpacked

SAMPLES = [(f"{number:04d}.txt", (f"sample {number} ").encode() * (number % 50)) for number in range(23)]


def test_small_files_and_shards_hold_the_same_samples():
    store = Memory()
    files = formats.write_files(store, "files", SAMPLES)
    shards = formats.write_shards(store, "shards", SAMPLES, 5)
    assert [store.get(key) for key in files] == [data for _, data in SAMPLES]
    assert shards == [f"shards/{number:06d}.tar" for number in range(5)] == store.list("shards/")
    assert [sample for shard in shards for sample in formats.from_tar(store.get(shard))] == SAMPLES


def test_a_range_of_a_shard_is_a_sample():
    shard = formats.to_tar(SAMPLES)
    assert [(name, shard[start : start + length]) for name, start, length in formats.positions(shard)] == SAMPLES


def test_a_shard_has_the_size_of_the_formula_and_the_same_bytes_each_time():
    for samples in ([], SAMPLES[:1], SAMPLES, [("a", b"x" * 512), ("b", b"x" * 513)]):
        shard = formats.to_tar(samples)
        assert len(shard) == formats.tar_bytes(len(data) for _, data in samples)
        assert shard == formats.to_tar(samples)


def test_a_shard_of_another_program_is_read(tmp_path):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as shard:
        folder = tarfile.TarInfo("folder")
        folder.type = tarfile.DIRTYPE
        shard.addfile(folder)
        one = tarfile.TarInfo("folder/" + "n" * 150)
        one.size = 3
        shard.addfile(one, io.BytesIO(b"abc"))
    assert list(formats.from_tar(out.getvalue())) == [("folder/" + "n" * 150, b"abc")]


@pytest.mark.filterwarnings("ignore")  # webdataset's own
def test_webdataset_reads_our_shards(tmp_path):
    pairs = [
        (f"{number:03d}.{kind}", data)
        for number in range(7)
        for kind, data in (("txt", b"text %d" % number), ("json", json.dumps({"n": number}).encode()))
    ]
    shards = formats.write_shards(Local(tmp_path), "s", pairs, 4)
    dataset = wds.WebDataset([str(tmp_path / shard) for shard in shards], shardshuffle=False).decode()
    found = [(sample["__key__"], sample["txt"], sample["json"]) for sample in dataset]
    assert found == [(f"{number:03d}", f"text {number}", {"n": number}) for number in range(7)]


def test_batches_run_over_the_borders_of_shards():
    shards = [formats.to_tar(SAMPLES[start : start + 5]) for start in range(0, 23, 5)]
    batches = list(unpacked(shards, formats.from_tar, 4))
    assert [len(batch) for batch in batches] == [4, 4, 4, 4, 4, 3]
    assert [sample for batch in batches for sample in batch] == SAMPLES
    assert [len(batch) for batch in unpacked(shards[:4], formats.from_tar, 10)] == [10, 10]


ROWS = {
    "text": [f"document {number}" * 20 for number in range(3000)],
    "length": list(range(3000)),
    "language": ["de" if number % 3 else "en" for number in range(3000)],
}


def test_columns_come_back_whole_or_in_part():
    parquet, arrow = columns.to_parquet(ROWS), columns.to_arrow(ROWS)
    assert columns.from_parquet(parquet) == columns.from_arrow(arrow) == ROWS
    assert columns.from_parquet(parquet, ["length"]) == {"length": ROWS["length"]}
    assert columns.from_parquet(parquet, ["length"], [("length", ">=", 2990)]) == {"length": list(range(2990, 3000))}
    assert columns.mean(parquet, "length") == 2999 / 2
    assert pq.read_table(io.BytesIO(parquet)).to_pydict() == feather.read_table(io.BytesIO(arrow)).to_pydict() == ROWS


def test_a_column_is_read_without_the_others():
    parquet = columns.to_parquet(ROWS)
    parts = [columns.bytes_read(parquet, [name]) for name in ROWS]
    assert sum(parts) == columns.bytes_read(parquet, list(ROWS)) < len(parquet)
    assert min(parts) == columns.bytes_read(parquet, ["language"]), "two values, a bit each"


@pytest.mark.parametrize(("vocabulary", "kind"), [(256, np.uint16), (65_536, np.uint16), (65_537, np.uint32)])
def test_tokens_are_mapped_in_the_narrowest_type(tmp_path, vocabulary, kind):
    documents = [[0, vocabulary - 1, 5], [], [7] * 10]
    starts = formats.write_tokens(tmp_path / "tokens.npy", documents, vocabulary)
    tokens = formats.map_tokens(tmp_path / "tokens.npy")
    assert tokens.dtype == kind and isinstance(tokens, np.memmap)
    assert [tokens[a:b].tolist() for a, b in itertools.pairwise(starts)] == documents
    x, y = formats.window(tokens, 2, 4)
    assert (x.tolist(), y.tolist()) == ([7, 7, 7, 7], [7, 7, 7, 7])
    assert formats.window(tokens, 0, 3)[1].tolist() == [vocabulary - 1, 5, 7]
    for number in (-1, 3):
        with pytest.raises(IndexError, match="13 tokens"):
            formats.window(tokens, number, 4)


def test_a_token_outside_the_vocabulary_is_refused(tmp_path):
    for wrong in (-1, 300):
        with pytest.raises(ValueError, match="the vocabulary has 300"):
            formats.write_tokens(tmp_path / "tokens.npy", [[1, wrong]], 300)
    assert formats.write_tokens(tmp_path / "tokens.npy", [], 300).tolist() == [0]
