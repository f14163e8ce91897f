"""The gaps of chapter 11, solved."""


def hybrid_group(rank, axis, pp, dp, cp, tp):
    inner = {"pp": dp * cp * tp, "dp": cp * tp, "cp": tp, "tp": 1}[axis]
    size = {"pp": pp, "dp": dp, "cp": cp, "tp": tp}[axis]
    first = rank - rank // inner % size * inner
    return [first + place * inner for place in range(size)]


def hybrid_reduction(kind, dp, cp, tp, ep):
    copies = {"cut": dp * cp, "between": dp * cp * tp, "expert": dp * cp // ep}[kind]
    return [copies, dp * cp]
