"""From tables of published figures to rows: what a column means, and what a table leaves open.

`read(file)` takes a YAML file with `tables`, each of an `id`, `columns` and `rows`; tables that it does not know it
leaves out. Whoever has more rows of the same tables can judge the planner by them:
`python -m parallel_lab.planner.calibrate --judge FILE`.

Where a table says nothing, this stands:
    megatron_sc21_table1  microbatches, chunks and overlap by the authors' script (Megatron-LM, examples/sc21)
    megatron_2020_dgx     sequences of 1,024 tokens; all activations recomputed; one microbatch for each data rank
    megatron_gpt3_1024    a microbatch of one sequence, no chunks
    bloom_prequel_sweep   64 heads; layers by the size that is named; a vocabulary of 250,880
    mosaic_llm_foundry    shapes of MPT by name; fused attention, half of whose square is computed
    zb_table4_throughput  shapes and microbatches by the paper's table 3; a vocabulary of 51,200
"""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from parallel_lab.planner.models import model
from parallel_lab.planner.rows import Row, gpt
from parallel_lab.planner.scheme import Scheme

Line = dict[str, Any]
_VOCAB, _BLOOM_VOCAB, _MPT_VOCAB = 51_200, 250_880, 50_368
_SC21 = {2304: (16, 1), 3072: (16, 1), 4096: (16, 1), 6144: (8, 1), 8192: (4, 1), 10_240: (2, 3), 12_288: (2, 2)}
_SC21 |= {16_384: (1, 2), 20_480: (1, 3), 25_600: (1, 1)}  # width: microbatch and chunks
_ZB = {"1.5B": (22, 24, 2304, 6), "6.2B": (30, 32, 4096, 3), "14.6B": (46, 40, 5120, 1), "28.3B": (62, 48, 6144, 1)}
_ZB_SCHEDULES = {"1F1B": "1f1b", "1F1B-I": "interleaved", "ZB-1p": "zb_h1", "ZB-2p": "zb_h2"}
_MEGATRON: Line = {"states": "megatron", "precision": "fp16", "attention": "unfused", "sequence_parallel": False}
_FSDP: Line = {"zero": 3, "states": "fsdp", "sequence_parallel": False}


def read(path: Path) -> list[Row]:
    """The rows of a file of tables."""
    with path.open(encoding="utf-8") as lines:
        tables = {table["id"]: table for table in yaml.safe_load(lines)["tables"]}
    found = []
    for name, row_of in _READERS.items():
        for values in tables.get(name, {"rows": ()})["rows"]:
            try:
                found += row_of(dict(zip(tables[name]["columns"], values, strict=True)))
            except (KeyError, TypeError, ValueError, ZeroDivisionError) as why:
                print(f"left out, a row of {name} that says too little ({why!r}): {values}", file=sys.stderr)
    return found


def _vtrain(stratum: str) -> Callable[[Line], Iterator[Row]]:
    def row_of(line: Line) -> Iterator[Row]:
        shape = _shape(line, line["seq"])
        scheme = Scheme(**_of(line, "pp", "dp", "tp"), microbatch=line["mbs"], recompute="full", **_MEGATRON)
        many = line["gpus"] > 8
        note = _VTRAIN_NOTES.get((many, line["hidden"], line["tp"], many * line["pp"], line["mbs"]), "")
        yield Row(stratum, "a100-vtrain", shape, scheme, False, line["gbs"], line["iter_ms"] / 1000, note)

    return row_of


_VTRAIN_NOTES = {  # over nodes, width, tp, pp (0: any), microbatch
    (False, 2048, 8, 0, 1): "a microbatch of one sequence takes longer than one of two",
    (False, 2048, 4, 0, 2): "a microbatch of two sequences takes no longer than one of one",
    (True, 6144, 4, 2, 4): "slower than with half and with twice the microbatch",
}


def _sc21(line: Line) -> Iterator[Row]:
    width, layers, seq = line["hidden"], line["layers"], 2048
    microbatch, chunks = _SC21[width]
    data = line["gpus"] // line["tp"] // line["pp"]
    flops = 96 * line["gbs"] * seq * layers * width**2 * (1 + seq / (6 * width) + _VOCAB / (16 * layers * width))
    step_s = flops / (line["tflops_gpu_hw"] * 1e12 * line["gpus"])
    scheme = _megatron(line, data, microbatch, chunks)
    yield Row("megatron", "a100-selene", _shape(line, seq), scheme, line["pp"] == 1, line["gbs"], step_s)


def _gpt3(line: Line) -> Iterator[Row]:
    shape = gpt(_VOCAB, 2048, 96, 96, 12_288, True)
    data = line["gpus"] // line["tp"] // line["pp"]
    yield Row("megatron", "a100-selene", shape, _megatron(line, data, 1), False, line["gbs"], line["iter_s"])


def _dgx(line: Line) -> Iterator[Row]:
    data = line["gpus"] // line["tp"]
    where = "a100-40-roce" if line["gpu"] == "A100" else "v100-dgx2h"
    scheme = _megatron(line | {"pp": 1}, data, line["gbs"] // data)
    yield Row("megatron 2020", where, _shape(line, 1024), scheme, False, line["gbs"], line["iter_ms"] / 1000)


def _korthikanti(line: Line) -> Iterator[Row]:
    schedule: Line = {"schedule": "interleaved" if line["interleave"] > 1 else "1f1b", "chunks": line["interleave"]}
    sizes = _of(line, "pp", "tp") | {"microbatch": line["mbs"]} | schedule
    for recompute, shared, column in (("full", False, "full_recompute"), ("selective", True, "seqpar_selective")):
        more = _MEGATRON | {"recompute": recompute, "sequence_parallel": shared}
        step_s = line[f"iter_s_{column}"]
        yield Row("korthikanti", "a100-selene", _shape(line, 2048), Scheme(**sizes, **more), False, line["gbs"], step_s)


def _bloom(line: Line) -> Iterator[Row]:
    data, batch, note = line["dp"], line["gbs"], ""
    world = line["pp"] * data * line["tp"]
    if world != line["gpus"] and line["gpus"] % (line["pp"] * line["tp"]) == 0:
        data = line["gpus"] // (line["pp"] * line["tp"])  # the layout that the GPUs allow
    if line["tflops_gpu_hw"] and line["gpus"] == 8 and line["layers"]:
        batch = _bloom_batch(line)
    scheme = Scheme(**_of(line, "pp", "tp"), dp=data, zero=line["zero_stage"], microbatch=line["mbs"], **_BLOOM)
    layers = (
        line["layers"] or round(float(line["size"][:-1]) * 1e9 / (12 * line["hidden"] ** 2 * line["pp"])) * line["pp"]
    )
    heads = line["heads"] or 64
    shape = gpt(_BLOOM_VOCAB, 2048, layers, heads, line["hidden"], True)
    if shape.head_width == 128 and heads & (heads - 1):
        note = "slower by a sixth than its neighbors with other heads, for no reason that its authors found"
    yield Row("bloom", "a100-jz", shape, scheme, False, batch, line["sec_per_it"] or 0.0, note)


_BLOOM: Line = {"states": "deepspeed", "attention": "unfused", "sequence_parallel": False, "recompute": "full"}


def _bloom_batch(line: Line) -> int:
    """Of runs on one node the batch column is that of the others; their TFLOP/s and seconds say another."""
    parameters = 12 * line["layers"] * line["hidden"] ** 2 + _BLOOM_VOCAB * line["hidden"]
    flops = line["tflops_gpu_hw"] * 1e12 * line["gpus"] * line["sec_per_it"]
    return min((2**k for k in range(5, 13)), key=lambda batch: abs(8 * parameters * batch * 2048 / flops - 1))


def _bloom_production(line: Line) -> Iterator[Row]:
    scheme = Scheme(**_of(line, "pp", "dp", "tp"), zero=1, microbatch=line["mbs"], **_BLOOM)
    shape = gpt(_BLOOM_VOCAB, 2048, line["layers"], line["heads"], line["hidden"], True)
    yield Row("bloom", "a100-jz", shape, scheme, False, line["gbs"], line["gbs"] / line["samples_per_s"])


def _mosaic(line: Line) -> Iterator[Row]:
    like = model(f"mpt-{line['model']}")
    shape = gpt(_MPT_VOCAB, line["seq"], like.layers, like.heads, like.width, False)
    where = {"a100_80gb": "a100-mosaic", "a100_40gb": "a100-40-mosaic"}.get(line["gpu"], "h100-roce")
    more: Line = {"recompute": "full" if line["act_ckpt"] == "True" else "none"}
    more["zero"] = 2 if line["sharding"] == "SHARD_GRAD_OP" else 3
    more["precision"] = "fp8" if "fp8" in line["precision"] else "bf16"
    scheme = Scheme(dp=line["gpus"], microbatch=line["mbs"], **_FSDP | more)
    step_s = line["gbs"] * line["seq"] / (line["tok_s_gpu"] * line["gpus"])
    yield Row(f"mosaic {where}", where, shape, scheme, True, line["gbs"], step_s, _mosaic_note(line))


def _mosaic_note(line: Line) -> str:
    key = (line["model"], line["gpu"], line["seq"], line["gpus"])
    return _MOSAIC_NOTES.get(key, "")


_MOSAIC_NOTES = {
    ("1b", "a100_40gb", 2048, 32): "a fifth slower than the same run on 16 and on 64 GPUs",
    ("760m", "a100_80gb", 1024, 8): "a sixth slower than at twice the sequence, with the same tokens",
    ("760m", "a100_80gb", 512, 8): "a fifth slower than at four times the sequence, with the same tokens",
    ("30b", "a100_80gb", 8192, 8): "a quarter slower than at half the sequence; its memory is full",
    ("70b", "a100_40gb", 2048, 64): "a quarter slower than on 128 GPUs; its memory is full",
}


def _zero_bubble(line: Line) -> Iterator[Row]:
    layers, heads, width, microbatch = _ZB[line["model"]]
    schedule: Any = _ZB_SCHEDULES[line["schedule"]]
    batch = line["m"] * microbatch
    chunks = (layers + 2) // line["gpus"] if schedule == "interleaved" else 1
    scheme = Scheme(pp=line["gpus"], schedule=schedule, chunks=chunks, microbatch=microbatch, **_MEGATRON)
    step_s = batch / (line["samples_per_gpu_s"] * line["gpus"])
    yield Row("zero bubble", "a100-selene", gpt(_VOCAB, 1024, layers, heads, width, True), scheme, False, batch, step_s)


def _megatron(line: Line, data: int, microbatch: int, chunks: int = 1) -> Scheme:
    schedule: Any = "interleaved" if chunks > 1 else "1f1b"
    sizes = _of(line, "pp", "tp") | {"dp": data, "microbatch": microbatch, "chunks": chunks}
    return Scheme(**sizes, schedule=schedule, recompute="full", **_MEGATRON)


def _shape(line: Line, seq: int):
    return gpt(_VOCAB, seq, line["layers"], line["heads"], line["hidden"], True)


def _of(line: Line, *names: str) -> Line:
    return {name: line[name] for name in names}


_READERS: dict[str, Callable[[Line], Iterator[Row]]] = {
    "vtrain_ground_truth_multi": _vtrain("vtrain multi"),
    "vtrain_ground_truth_single": _vtrain("vtrain single"),
    "megatron_sc21_table1": _sc21,
    "megatron_gpt3_1024": _gpt3,
    "megatron_2020_dgx": _dgx,
    "korthikanti_table5": _korthikanti,
    "bloom_prequel_sweep": _bloom,
    "bloom_176b_production": _bloom_production,
    "mosaic_llm_foundry": _mosaic,
    "zb_table4_throughput": _zero_bubble,
}
