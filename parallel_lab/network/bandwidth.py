"""The two bandwidths that nccl-tests prints of a collective, and what the second is good for.

The algorithm bandwidth is S/T, with T the time of the collective. It falls with n, and says nothing about the hardware.
The bus bandwidth is S/T times the factor below: the bytes that each rank has to send at least, per second. It can be
held against the bandwidth W of a rank's link, for any n and any algorithm of messages between ranks. A switch that adds
breaks the rule: a rank then sends S instead of 2 (n-1)/n S, so the bus bandwidth can be larger than W.

    all_reduce                                              2 (n-1)/n
    reduce_scatter, all_gather, all_to_all                  (n-1)/n
    broadcast, reduce                                       1

S is the whole tensor, as in `collective.price`: of all_gather the output, of reduce_scatter the input. NVIDIA, nccl-
tests, doc/PERFORMANCE.md.
"""


def bus_factor(kind: str, ranks: int) -> float:
    """What each rank of a collective has to send at least, in whole tensors: bus bandwidth over algorithm bandwidth.

    Raises:
        ValueError: nccl-tests has no factor for this kind.
    """
    share = (ranks - 1) / ranks
    factors = {"all_reduce": 2 * share, "broadcast": 1.0, "reduce": 1.0}
    factors |= dict.fromkeys(("reduce_scatter", "all_gather", "all_to_all"), share)
    if kind not in factors:
        raise ValueError(f"no bus bandwidth of {kind}: there is one of {', '.join(factors)}")
    return factors[kind]


def bus_bandwidth(kind: str, ranks: int, size_bytes: float, seconds: float) -> float:
    """Bytes per second that each rank must have sent at least, if the collective took `seconds`."""
    return size_bytes / seconds * bus_factor(kind, ranks)


def seconds_at(kind: str, ranks: int, size_bytes: float, bus_bytes_per_s: float) -> float:
    """How long a long collective takes at a bus bandwidth; latency comes on top."""
    return size_bytes * bus_factor(kind, ranks) / bus_bytes_per_s
