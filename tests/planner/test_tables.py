"""What each column of the published tables means, on a row of each; and rows whose table says something wrong."""

import pytest
import yaml

from parallel_lab.planner.tables import read

TABLES = {
    "megatron_sc21_table1": {"hidden": 10_240, "layers": 60, "heads": 80, "tp": 8, "pp": 4, "gpus": 1024, "gbs": 1792}
    | {"tflops_gpu_hw": 140},
    "megatron_gpt3_1024": {"tp": 8, "pp": 16, "gpus": 1024, "gbs": 1536, "iter_s": 32},
    "megatron_2020_dgx": {"hidden": 4096, "heads": 32, "layers": 42, "tp": 8, "gpu": "V100", "gpus": 8, "gbs": 8}
    | {"iter_ms": 1407},
    "korthikanti_table5": {"hidden": 12_288, "heads": 96, "layers": 96, "tp": 8, "pp": 8, "interleave": 3, "gbs": 64}
    | {"mbs": 1, "iter_s_full_recompute": 18.13, "iter_s_seqpar_selective": 13.75},
    "bloom_176b_production": {"layers": 70, "hidden": 14_336, "heads": 112, "tp": 4, "pp": 12, "dp": 8, "mbs": 2}
    | {"gbs": 2048, "samples_per_s": 19.561},
    "zb_table4_throughput": {"model": "14.6B", "gpus": 16, "m": 48, "schedule": "1F1B-I", "samples_per_gpu_s": 1.54},
}
BLOOM = {"gpus": 384, "size": "181B", "hidden": 14_336, "layers": 72, "heads": None, "zero_stage": 1, "dp": 8, "tp": 8}
BLOOM |= {"pp": 6, "mbs": 4, "gbs": 2048, "sec_per_it": 120.0, "tflops_gpu_hw": 134.0}
MOSAIC = {"model": "7b", "seq": 4096, "gpus": 8, "gpu": "a100_80gb", "mbs": 16, "gbs": 256, "tok_s_gpu": 3684}
MOSAIC |= {"precision": "amp_bf16", "sharding": "FULL_SHARD", "act_ckpt": "True"}


@pytest.fixture
def rows_of(tmp_path):
    def rows(name, *lines):
        table = {"id": name, "columns": list(lines[0]), "rows": [list(line.values()) for line in lines]}
        file = tmp_path / "tables.yaml"
        file.write_text(yaml.safe_dump({"tables": [table]}))
        return read(file)

    return rows


def test_one_row_of_each(rows_of):
    found = {name: rows_of(name, line) for name, line in TABLES.items()}
    assert [len(rows) for rows in found.values()] == [1, 1, 1, 2, 1, 1]
    for rows in found.values():
        for row in rows:
            assert abs(row.error()) < 0.15, row
    sc21 = found["megatron_sc21_table1"][0]
    assert (sc21.scheme.dp, sc21.scheme.chunks, sc21.scheme.schedule) == (32, 3, "interleaved")
    assert sc21.step_s == pytest.approx(16.06, abs=0.01)
    full, selective = found["korthikanti_table5"]
    assert (full.scheme.sequence_parallel, selective.scheme.sequence_parallel) == (False, True)
    assert found["zb_table4_throughput"][0].scheme.chunks == 3


def test_bloom(rows_of):
    odd, noted, one_node, sized, failed = (
        BLOOM | {"dp": 6},  # 6 x 8 x 6 are not 384
        BLOOM | {"heads": 112},  # heads of 128, and not a power of two of them
        BLOOM | {"gpus": 8, "layers": 6, "dp": 1, "pp": 1, "mbs": 2, "sec_per_it": 130.43, "tflops_gpu_hw": 143.48},
        BLOOM | {"layers": None, "hidden": 14_400, "size": "194B"},
        BLOOM | {"sec_per_it": None, "tflops_gpu_hw": None},
    )
    rows = rows_of("bloom_prequel_sweep", odd, noted, one_node, sized, failed)
    assert rows[0].scheme.dp == 8
    assert rows[1].note and not rows[0].note
    assert rows[2].batch == 512  # 2,048 sequences would be 570 TFLOP/s
    assert rows[3].shape.layers == 78
    assert rows[4].step_s == 0


def test_mosaic(rows_of):
    fine, fp8, half, none = (
        MOSAIC,
        MOSAIC | {"gpu": "h100_80gb", "precision": "amp_fp8"},
        MOSAIC | {"sharding": "SHARD_GRAD_OP"},
        MOSAIC | {"act_ckpt": "False", "model": "1b", "gpu": "a100_40gb", "seq": 2048, "gpus": 32},
    )
    rows = rows_of("mosaic_llm_foundry", fine, fp8, half, none)
    assert [row.cluster for row in rows] == ["a100-mosaic", "h100-roce", "a100-mosaic", "a100-40-mosaic"]
    assert [row.scheme.zero for row in rows] == [3, 3, 2, 3]
    assert [row.scheme.precision for row in rows] == ["bf16", "fp8", "bf16", "bf16"]
    assert rows[3].scheme.recompute == "none" and rows[3].note
    assert abs(rows[0].error()) < 0.05


def test_a_row_that_says_too_little_is_named(rows_of, capsys):
    assert len(rows_of("bloom_prequel_sweep", BLOOM, BLOOM | {"mbs": None}, BLOOM | {"size": 7, "layers": None})) == 1
    assert capsys.readouterr().err.count("left out") == 2
