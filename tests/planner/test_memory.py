"""Memory of a rank against papers, estimators and published runs; closed forms against plans."""

import dataclasses
import itertools

import pytest

from parallel_lab import pipeline
from parallel_lab.model.budget import layer_activation_bytes
from parallel_lab.planner import Model, Scheme, at_rest, cluster, fits, memory, model, room
from parallel_lab.planner.activations import layer_bytes, under_way
from parallel_lab.planner.recorded import bloom, bloom_fits, bloom_rows, zero_bubble_rows
from parallel_lab.planner.stages import fullest, layer_numbers, part, split

GIB = 2**30
KORTHIKANTI = {  # heads, width, layers, tp, pp, chunks, microbatch: table 3 of the paper
    "22B": (64, 6144, 48, 8, 1, 1, 4),
    "175B": (96, 12_288, 96, 8, 8, 3, 1),
    "530B": (128, 20_480, 105, 8, 35, 3, 1),
    "1T": (160, 25_600, 128, 8, 64, 1, 1),
}
GPT = {"tied": True, "bias": True, "positions": "learned", "norm": "layer", "gated": False}
ZERO_TABLE_1 = {  # GB of a model of 7.5, 128 and 1000 B: ranks, then stages 1, 2 and 3 of each
    1: (120, 120, 120, 2048, 2048, 2048, 16_000, 16_000, 16_000),
    4: (52.5, 41.3, 30, 896, 704, 512, 7000, 5500, 4000),
    16: (35.6, 21.6, 7.5, 608, 368, 128, 4750, 2875, 1000),
    64: (31.4, 16.6, 1.88, 536, 284, 32, 4187, 2218, 250),
    256: (30.4, 15.4, 0.47, 518, 263, 8, 4046, 2054, 62.5),
    1024: (30.1, 15.1, 0.12, 513, 257, 2, 4011, 2013, 15.6),
}


def states(shape, scheme):
    """Bytes of weights, gradients and optimizer."""
    terms = memory(shape, scheme, scheme.dp)
    return sum(terms.get(name) for name in ("weights", "gradients", "optimizer"))


def of_size(parameters):
    """A model of about so many parameters, of which a count cancels what differs."""
    return Model(vocab=1, seq=8, layers=1, heads=1, width=64, hidden=round(parameters / 192), name=str(parameters))


@pytest.mark.parametrize("ranks", ZERO_TABLE_1)
def test_zeros_table_1(ranks):
    """All 54 numbers, as they are printed: three digits, some of them cut and not rounded."""
    sizes, numbers = (7.5e9, 128e9, 1e12), iter(ZERO_TABLE_1[ranks])
    for size, stage in itertools.product(sizes, (1, 2, 3)):
        shape = of_size(size)
        scheme = Scheme(dp=ranks, zero=stage, states="mixed")
        found = states(shape, scheme) * size / shape.parameters / 1e9
        assert found == pytest.approx(next(numbers), rel=0.006, abs=0.006)


@pytest.mark.parametrize(
    ("zero", "offload", "gib"), [(2, "none", 15.93), (2, "optimizer", 5.31), (3, "none", 6.09), (3, "optimizer", 0.78)]
)
def test_deepspeeds_estimators(zero, offload, gib):
    """Its documentation's t5-3b: 2,851 M numbers on 8 ranks, and a largest layer of 32 M, of which it takes 4 bytes.

    With the optimizer in the host's memory its stage 2 counts no gradients: it sends each away as it comes.
    """
    shape = of_size(2.851e9)
    scheme = Scheme(dp=8, zero=zero, states="deepspeed", offload=offload)
    found = states(shape, scheme) * 2.851e9 / shape.parameters
    if zero == 2 and offload == "optimizer":
        found -= memory(shape, scheme, 8)["gradients"].value * 2.851e9 / shape.parameters
    if zero == 3:
        found += 4 * 32e6
    assert found / GIB == pytest.approx(gib, abs=0.006)


def korthikanti(name, **options):
    """The shape and the scheme of a model of the paper."""
    heads, width, layers, tp, pp, chunks, microbatch = KORTHIKANTI[name]
    shape = Model(vocab=51_200, seq=2048, layers=layers, heads=heads, width=width, dropout=0.1, **GPT)
    schedule = "interleaved" if chunks > 1 else "1f1b"
    usual = {"schedule": schedule, "chunks": chunks, "microbatch": microbatch, "attention": "unfused"}
    return shape, Scheme(tp=tp, pp=pp, **{**usual, **options})


@pytest.mark.parametrize("name", KORTHIKANTI)
def test_korthikantis_equations(name):
    """Equations 1 to 6: 34 + 5 a s/h, 10 + 24/t + 5 a s/h t, all of it over t, and what recomputation leaves."""
    shape, scheme = korthikanti(name)
    b, t, s, h, a = scheme.microbatch, scheme.tp, shape.seq, shape.width, shape.heads
    alone = dataclasses.replace(scheme, tp=1)
    assert layer_bytes(shape, alone, 0).all == layer_activation_bytes(h, a, s, b)
    assert layer_bytes(shape, scheme, 0).all == pytest.approx(s * b * h * (34 + 5 * a * s / h) / t)
    whole = dataclasses.replace(scheme, sequence_parallel=False)
    assert layer_bytes(shape, whole, 0).all == pytest.approx(s * b * h * (10 + 24 / t + 5 * a * s / (h * t)))
    selective = dataclasses.replace(scheme, recompute="selective")
    assert layer_bytes(shape, selective, 0).all == s * b * h * 34 / t


@pytest.mark.parametrize(
    ("name", "none", "selective"),
    [
        ("22B", 59.25, 9.5625),
        ("175B", 66.84375, 12.3515625),
        ("530B", 114.0234375, 23.076171875),
        ("1T", 131.25, 26.5625),
    ],
)
def test_korthikantis_figure_1(name, none, selective):
    """Activations of the first rank in GiB: layers under way, L (1 + (p-1)/(p v)) of them where interleaved.

    The paper's is the count without sequence parallelism or recomputation, and with both.
    """
    shape, scheme = korthikanti(name, sequence_parallel=False)
    both = dataclasses.replace(scheme, sequence_parallel=True, recompute="selective")
    for plan, gib in ((scheme, none), (both, selective)):
        terms = memory(shape, plan, 64 * plan.pp * plan.microbatch, rank=0)["activations"]
        layers = sum(terms.get(name) for name in ("norms", "inputs", "attention", "hidden", "masks", "scores"))
        p, v = plan.pp, plan.chunks
        under = shape.layers * (1 + (p - 1) / (p * v) if v > 1 else 1)
        assert layers == pytest.approx(
            under * layer_bytes(shape, plan, 0).all, rel=0.02 if shape.layers % (p * v) else 1e-9
        )
        assert layers / GIB == pytest.approx(gib, rel=0.03)


def test_a_fused_kernel_keeps_no_scores_and_grouped_heads_keep_less():
    shape = model("llama3-70b")
    assert layer_bytes(shape, Scheme(), 0).scores == 4 * 64 * 8192
    assert layer_bytes(shape, Scheme(attention="unfused"), 0).scores == 2 * 64 * 8192**2
    alone = dataclasses.replace(shape, kv_heads=64)
    assert layer_bytes(shape, Scheme(), 0).attention / layer_bytes(alone, Scheme(), 0).attention == (2 + 2 / 8) / 4
    spread = layer_bytes(shape, Scheme(tp=16), 0).attention  # of 8 key-value heads each of 16 ranks has one
    assert spread == 2 * 8192 * (2 * 8192 / 16 + 2 * 128)


def test_experts_and_latents_are_counted():
    deepseek = model("deepseek-v3")
    dense, mixture = layer_bytes(deepseek, Scheme(), 0), layer_bytes(deepseek, Scheme(), 3)
    assert dense.hidden == 2 * 4096 * 3 * 18_432 and mixture.hidden == 2 * 4096 * 3 * (8 + 1) * 2048
    held = layer_numbers(deepseek, 1, 64, 3)
    assert held.experts == 256 * 3 * 7168 * 2048 / 64
    scheme = Scheme(pp=16, dp=128, ep=64, zero=1, precision="fp8", recompute="full")
    terms = memory(deepseek, scheme, 15_360)
    assert terms["optimizer"].get("optimizer of experts") == pytest.approx(
        12 * part(deepseek, scheme, 0).numbers.experts / 2, rel=0.4
    )
    assert "master" not in terms.tree() and "/ 128" in terms.tree()


@pytest.mark.parametrize("schedule", ["gpipe", "1f1b", "zb_h1", "zb_h2", "interleaved"])
def test_microbatches_under_way_are_those_of_the_plan(schedule):
    """Walked through the passes of each rank: a forward holds, a backward frees, of H1 and H2 the late part of it."""
    functions = {
        "1f1b": pipeline.one_f_one_b,
        "gpipe": pipeline.gpipe,
        "zb_h1": pipeline.zb_h1,
        "zb_h2": pipeline.zb_h2,
    }
    for p, m, v in ((2, 4, 3), (4, 8, 2), (4, 4, 3)):
        chunks = v if schedule == "interleaved" else 1
        plan = pipeline.interleaved(p, m, v) if chunks > 1 else functions[schedule](p, m)
        scheme = Scheme(pp=p, schedule=schedule, chunks=chunks)
        for rank in range(p):
            held = most = 0
            for op in plan.rows[rank]:
                held += {"F": 1, "B": -1, "W": -1}.get(op.kind, 0)
                most = max(most, held)
            assert sum(under_way(scheme, rank, m)) == most, (schedule, p, m, rank)


@pytest.mark.parametrize(("name", "batch"), [("llama3-8b", 256), ("mixtral-8x7b", 256), ("deepseek-v3", 1024)])
def test_the_fullest_rank_is_among_those_that_are_looked_at(name, batch):
    shape = model(name, seq=4096)
    schedules = [{}, {"schedule": "gpipe"}, {"schedule": "interleaved", "chunks": 2}, {"schedule": "zb_v"}]
    for pp, options, recompute in itertools.product((2, 4, 8), schedules, ("none", "full")):
        scheme = Scheme(pp=pp, dp=8, zero=1, recompute=recompute, **options)
        every = [memory(shape, scheme, batch, rank=rank).value for rank in range(pp)]
        assert memory(shape, scheme, batch).value == max(every), scheme
        assert set(fullest(shape, scheme)) <= set(range(pp))


def test_layers_are_dealt_out_as_reports_say():
    llama = [len(each) for each in split(model("llama3-405b"), Scheme(pp=16, schedule="interleaved", chunks=8))]
    assert (llama[0], llama[-1], set(llama[1:-1])) == (0, 0, {1})
    zero_bubble = [len(each) for each in split(dataclasses.replace(model("gpt2-124m"), layers=22), Scheme(pp=8))]
    assert zero_bubble == [2, 3, 3, 3, 3, 3, 3, 2]
    assert [len(each) for each in split(model("bloom-176b"), Scheme(pp=12))].count(6) == 10


def test_stage_3_has_a_layer_in_whole_and_offloading_leaves_the_card():
    shape, stage_3 = model("llama3-8b"), Scheme(dp=8, zero=3, states="fsdp")
    terms = memory(shape, stage_3, 8)
    one = layer_numbers(shape, 1, 1, 0).all
    assert terms["weights"].value == pytest.approx(4 * shape.parameters / 8)
    assert terms["gathered/two layers"].value == 4 * one and terms["gathered/outside of layers"].value > 0
    grad_op = memory(shape, dataclasses.replace(stage_3, zero=2), 8)
    assert grad_op["gathered"].value == 2 * shape.parameters
    offloaded = memory(shape, Scheme(dp=8, zero=1, offload="optimizer"), 8)
    assert offloaded.get("optimizer") == 0 and offloaded.value < memory(shape, Scheme(dp=8, zero=1), 8).value
    hybrid = memory(shape, dataclasses.replace(stage_3, shard=2), 8)
    assert hybrid["weights"].value == 4 * terms["weights"].value
    assert memory(shape, Scheme(precision="fp32"), 1)["weights"].value == 4 * shape.parameters
    assert at_rest(shape, stage_3, 8).value < terms.value


def test_llama_fits_where_it_should():
    shape, gpus = model("llama3-70b"), cluster("h100-ib", gpus=1024)
    assert room(gpus) == 0.95 * 80 * GIB
    assert fits(shape, Scheme(pp=4, dp=32, tp=8, zero=1), 1024, gpus)
    assert not fits(shape, Scheme(dp=1024, zero=1), 1024, gpus)


BLOOM = {
    "size": "181B",
    "layers": 72,
    "heads": 64,
    "hidden": 14_336,
    "tp": 8,
    "zero_stage": 1,
    "gbs": 2048,
    "note": None,
}
BLOOM_ROWS = [  # pp, dp, microbatch, GB: some of its rows
    (12, 4, 1, 29), (12, 4, 4, 49), (12, 4, 8, 69), (6, 8, 1, 38), (6, 8, 2, 44), (6, 8, 4, 56),
]  # fmt: skip


def bloom_row(pp, dp, mbs, gb, **changed):
    return {**BLOOM, "pp": pp, "dp": dp, "mbs": mbs, "mem_gb_max": gb, "sec_per_it": 100.0, **changed}


def test_rows_of_bigscience_within_5_percent():
    found = list(bloom_rows(bloom_row(*row) for row in BLOOM_ROWS))
    assert len(found) == len(BLOOM_ROWS) and all(abs(row.off) < 0.05 for row in found)


def test_runs_that_do_not_fit_are_predicted_not_to():
    """The production layout without sharding, or without a pipeline, or with twice the largest microbatch that ran."""
    too_large = [bloom_row(6, 8, 1, None, zero_stage=0), bloom_row(1, 48, 1, None), bloom_row(12, 4, 16, None)]
    found = list(bloom_fits({**row, "sec_per_it": None, "note": "OOM"} for row in too_large))
    assert [(each.fitted, each.predicted) for each in found] == [(False, False)] * 3
    assert all(each.fitted and each.predicted for each in bloom_fits(bloom_row(*row) for row in BLOOM_ROWS))
    assert bloom(bloom_row(6, 8, 1, 38))[1].world == 384


def test_all_published_rows_of_the_sweep(published):
    rows = published("bloom_prequel_sweep")
    found = [row for row in bloom_rows(rows) if not row.why]
    assert len(found) >= 21 and all(abs(row.off) < 0.065 for row in found)
    assert sum(abs(row.off) for row in found) / len(found) < 0.03
    assert all(each.fitted == each.predicted for each in bloom_fits(rows))


@pytest.mark.parametrize(
    ("name", "gpus", "m", "schedule", "gb"),
    [
        ("1.5B", 8, 24, "ZB-2p", 59), ("1.5B", 8, 64, "ZB-1p", 32), ("1.5B", 8, 32, "1F1B", 30),
        ("1.5B", 8, 32, "1F1B-I", 40), ("14.6B", 16, 48, "ZB-2p", 51), ("14.6B", 16, 48, "ZB-1p", 33),
        ("14.6B", 16, 64, "1F1B", 32), ("14.6B", 16, 64, "1F1B-I", 39),
    ],
)  # fmt: skip
def test_zero_bubbles_table_4(name, gpus, m, schedule, gb):
    row = {"model": name, "gpus": gpus, "m": m, "schedule": schedule, "mem_gb": gb}
    assert abs(next(iter(zero_bubble_rows([row]))).off) < 0.03
    assert not list(zero_bubble_rows([{**row, "model": "7B"}]))


def test_all_published_rows_of_zero_bubble(published):
    assert all(abs(row.off) < 0.03 for row in zero_bubble_rows(published("zb_table4_throughput")))
