"""What a rank sends in one step, by axis, before anything runs: a tree of terms.

    traffic(shape, scheme, batch)["tp"].text

With S the bytes of an activation of all microbatches that pass a rank, B/dp s/cp h e:

    pp      S to the next stage and S back, for each of its stages; once a step the gradient of a tied weight
    tp      8 (tp-1)/tp S for each layer, or as many bytes in gathers and scatters; less at the ends; the loss
    cp      3 (cp-1) S_KV for each layer, keys and values S_KV = 2 S h_kv/h/tp; with two bytes a number 4 (cp-1) S_KV
    ep      4 (ep-1)/ep K S for each layer with experts, if all experts are chosen equally often; and counts
    data    gradients and weights: 2 (n-1)/n N e without sharding and in stages 1 and 2, with the bytes that each takes;
            stage 3 gathers for each pass and microbatch

Sources: those of the techniques' own formulas, with which tests compare it; and tests hold it against runs on 8 ranks
(tests/planner/test_ranks.py).
"""

from parallel_lab.model.config import GPTConfig
from parallel_lab.network import price
from parallel_lab.planner.activations import number_bytes, tokens
from parallel_lab.planner.memory import bytes_of
from parallel_lab.planner.models import has_experts
from parallel_lab.planner.scheme import Scheme
from parallel_lab.planner.stages import Part, part, table_numbers
from parallel_lab.planner.terms import Term, total

COUNT_BYTES = 8  # of how many tokens go to an expert
SUM_BYTES = 4  # at least, of a sum of gradients of keys and values


def traffic(shape: GPTConfig, scheme: Scheme, batch: int, *, rank: int = 0) -> Term:
    """Bytes that a rank of the pipeline's `rank` sends in a step of `batch` sequences, by axis."""
    mine, count = part(shape, scheme, rank), scheme.microbatches(batch)
    each = count * tokens(shape, scheme) * shape.width * number_bytes(scheme)
    axes = [
        _pipeline(shape, scheme, mine, each),
        _tensor(shape, scheme, mine, each),
        _context(shape, scheme, mine, each),
        _experts(shape, scheme, mine, each, count),
        _data(scheme, mine, count),
    ]
    return Term("traffic", sum(axis.value for axis in axes), "B", f"pipeline rank {rank}, per step", parts=tuple(axes))


def _sent(kind: str, ranks: int, size_bytes: float) -> float:
    return float(price(kind, ranks, size_bytes).sent_bytes) if ranks > 1 else 0.0


def _pipeline(shape: GPTConfig, scheme: Scheme, mine: Part, each: float) -> Term:
    stages, turn = scheme.stages_each, scheme.schedule in ("zb_v", "dualpipe_v")
    cuts = 2 * stages - mine.first - mine.last - (turn and mine.rank == scheme.pp - 1) * 2
    tied = shape.tied and scheme.pp > 1 and mine.first != mine.last
    once = table_numbers(shape, scheme) * bytes_of(scheme).gradient if tied else 0.0
    sent = cuts * each if scheme.pp > 1 else 0.0
    parts = [Term("messages", sent, "B", f"{cuts} x S"), Term("tied weight", once, "B", "V/tp h: its gradient, once")]
    return total("pp", parts)


def _tensor(shape: GPTConfig, scheme: Scheme, mine: Part, each: float) -> Term:
    t, sequence = scheme.tp, scheme.sequence_parallel and scheme.tp > 1
    once = _sent("all_gather", t, each)
    ends = (2 if mine.first else 0) + (2 if mine.last else 0)
    positions = each / shape.width / number_bytes(scheme)
    loss = 3 * _sent("all_reduce", t, positions * max(4, number_bytes(scheme))) if mine.last else 0.0
    norms = 2 if shape.bias and shape.norm == "layer" else 1
    copies = len(mine.layers) * (2 * norms + (2 if shape.bias else 0)) + (norms if mine.last else 0)
    summed = _sent("all_reduce", t, copies * shape.width * bytes_of(scheme).gradient) if sequence else 0.0
    parts = [
        Term("layers", 8 * len(mine.layers) * once, "B", f"{len(mine.layers)} layers x 8 (tp-1)/tp S"),
        Term("embedding and head", ends * once, "B", f"{ends} (tp-1)/tp S"),
        Term("loss", loss, "B", "three numbers a token"),
        Term("copied parameters", summed, "B", "gradients of norms and biases, which see a part of the sequence"),
    ]
    return total("tp", parts)


def _context(shape: GPTConfig, scheme: Scheme, mine: Part, each: float) -> Term:
    kv_heads = max(1, (shape.kv_heads or shape.heads) / scheme.tp)
    keys_values = 2 * each / shape.width * kv_heads * shape.head_width
    e = number_bytes(scheme)
    times = 2 + max(SUM_BYTES, e) / e
    sent = len(mine.layers) * times * (scheme.cp - 1) * keys_values
    return Term("cp", sent, "B", f"{len(mine.layers)} layers x {times:g} (cp-1) S_KV")


def _experts(shape: GPTConfig, scheme: Scheme, mine: Part, each: float, count: int) -> Term:
    mixtures = sum(has_experts(shape, layer) for layer in mine.layers)
    spread = scheme.tp if scheme.sequence_parallel else 1
    once = _sent("all_to_all", scheme.ep, shape.active_experts * each / spread)
    counts = count * _sent("all_to_all", scheme.ep, COUNT_BYTES * shape.experts)
    parts = [
        Term("tokens", mixtures * 4 * once, "B", f"{mixtures} layers x 4 (ep-1)/ep K S: to experts and back, each way"),
        Term("counts", mixtures * counts, "B", "how many tokens each expert gets"),
    ]
    return total("ep", parts)


def _data(scheme: Scheme, mine: Part, count: int) -> Term:
    gathered, summed = _wire(scheme)
    terms = []
    for name, numbers, root, ranks in (
        ("outside of experts", mine.numbers.dense, mine.ends, scheme.data),
        ("experts", mine.numbers.experts, 0.0, scheme.data // scheme.ep),
    ):
        shards = min(ranks, max(1, scheme.sharded // (scheme.ep if name == "experts" else 1)))
        once = count * _sent("all_gather", shards, gathered * root) if scheme.zero == 3 else 0.0
        sent = _sums(scheme, numbers, ranks, shards, count, gathered, summed) - once  # the root stays gathered
        terms.append(Term(name, sent, "B", f"{numbers / 1e6:,.1f} M over {ranks} ranks"))
    return total("data", terms)


def _wire(scheme: Scheme) -> tuple[float, float]:
    """Bytes of a weight that is gathered, and of a gradient that is summed."""
    own = bytes_of(scheme)
    return (own.weight if scheme.states != "fsdp" else 2.0, own.gradient)


def _sums(scheme: Scheme, numbers: float, ranks: int, shards: int, count: int, gathered: float, summed: float) -> float:
    if scheme.zero == 3:
        moved = count * (2 * _sent("all_gather", shards, gathered * numbers))
        moved += count * _sent("reduce_scatter", shards, summed * numbers)
        return moved + count * _sent("all_reduce", ranks // shards, summed * numbers / shards)
    if scheme.zero == 0:
        return _sent("all_reduce", ranks, summed * numbers)
    if scheme.states == "float32":  # this course's stage 1 is given averaged gradients
        return _sent("all_reduce", ranks, summed * numbers) + _sent("all_gather", ranks, gathered * numbers)
    moved = _sent("reduce_scatter", shards, summed * numbers) + _sent("all_gather", shards, gathered * numbers)
    return moved + _sent("all_reduce", ranks // shards, summed * numbers / shards)
