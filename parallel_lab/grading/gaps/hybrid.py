"""The gaps of chapter 11: the ranks of an axis, and over how many ranks a gradient is summed and divided."""

from parallel_lab.grading.gaps.forms import function_gap

MESHES = ((2, 2, 1, 2), (2, 2, 2, 2), (4, 2, 1, 8), (1, 3, 2, 4), (3, 1, 2, 2))


def hybrid_group(rank, axis, pp, dp, cp, tp):
    """The ranks of the group of `rank` along an axis, in order."""
    sizes = {"pp": pp, "dp": dp, "cp": cp, "tp": tp}
    inner = 1
    for name in reversed(sizes):
        if name == axis:
            break
        inner *= sizes[name]
    first = rank - rank // inner % sizes[axis] * inner
    return [first + place * inner for place in range(sizes[axis])]


def hybrid_reduction(kind, dp, cp, tp, ep):
    """Over how many ranks a gradient is summed, and by what it is divided, if each rank's loss is its own mean."""
    over = {"cut": dp * cp, "between": dp * cp * tp, "expert": dp * cp // ep}[kind]
    return [over, dp * cp]


def _innermost_first(rank, axis, pp, dp, cp, tp):
    """As if pp were the innermost axis."""
    stride = {"pp": 1, "dp": pp, "cp": pp * dp, "tp": pp * dp * cp}[axis]
    size = {"pp": pp, "dp": dp, "cp": cp, "tp": tp}[axis]
    first = rank - rank // stride % size * stride
    return [first + place * stride for place in range(size)]


def _neighbors(rank, axis, pp, dp, cp, tp):
    size = {"pp": pp, "dp": dp, "cp": cp, "tp": tp}[axis]
    return list(range(rank // size * size, rank // size * size + size))


def _from_own(rank, axis, pp, dp, cp, tp):
    group = hybrid_group(rank, axis, pp, dp, cp, tp)
    place = group.index(rank)
    return group[place:] + group[:place]


def _by_copies(kind, dp, cp, tp, ep):
    return [hybrid_reduction(kind, dp, cp, tp, ep)[0]] * 2


def _by_dp(kind, dp, cp, tp, ep):
    return [hybrid_reduction(kind, dp, cp, tp, ep)[0], dp]


def _not_over_tp(kind, dp, cp, tp, ep):
    return [dp * cp if kind == "between" else hybrid_reduction(kind, dp, cp, tp, ep)[0], dp * cp]


GAPS = (
    function_gap(
        hybrid_group,
        tests={
            "Along the innermost axis: neighbors": [
                (rank, "tp", *mesh) for mesh in MESHES for rank in (0, mesh[3], 2 * mesh[3] + 1)
            ],
            "Along the others": [
                (rank, axis, *mesh) for mesh in MESHES[:3] for axis in ("pp", "dp", "cp") for rank in (0, 5)
            ],
        },
        mistakes={
            "The last axis is the innermost: along tp the ranks are neighbors.": _innermost_first,
            "Only along the innermost axis are they neighbors. How many ranks lie inside the axis?": _neighbors,
            "The first of the group comes first, whoever asks: all ranks must see the same order.": _from_own,
        },
    ),
    function_gap(
        hybrid_reduction,
        tests={
            "A matrix that tp cuts": [("cut", 4, 1, 2, 1), ("cut", 2, 2, 4, 2), ("cut", 8, 4, 8, 4)],
            "A norm between two cut parts, with sequence parallelism": [
                ("between", 4, 1, 2, 1),
                ("between", 2, 2, 4, 2),
            ],
            "An expert": [("expert", 4, 1, 2, 2), ("expert", 4, 2, 1, 8), ("expert", 8, 1, 2, 4)],
        },
        mistakes={
            "Divide by the number of local means, the same for all parameters; the copies may be fewer or more.": (
                _by_copies
            ),
            "A rank of cp has a part of the tokens as well, and its own mean.": _by_dp,
            "Each rank of tp saw a part of the sequence there: what each has is a part of the sum.": _not_over_tp,
        },
    ),
)
