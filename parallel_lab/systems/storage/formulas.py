"""What a request, a checkpoint, a copy and a code cost.

Conventions: sizes in bytes, bandwidth in bytes per second in one direction, latency in seconds from a request to the
first byte of its answer. A code RS(data, parity) has so many pieces of data and of parity.
"""

import math


def request_s(size: float, latency_s: float, bytes_per_s: float) -> float:
    """Seconds of one request: its latency, then its bytes."""
    return latency_s + size / bytes_per_s


def throughput(size: float, latency_s: float, bytes_per_s: float, readers: int = 1) -> float:
    """Bytes per second of readers that ask for one object after another over a shared link.

    Each has a request under way all the time, and latencies overlap, so the readers together get `readers` times what
    one gets, until the link is full.
    """
    return min(readers * size / request_s(size, latency_s, bytes_per_s), bytes_per_s)


def half_size(latency_s: float, bytes_per_s: float) -> float:
    """The size of an object with which one reader gets half the bandwidth: latency times bandwidth.

    size / (latency + size/W) = W/2 where latency = size/W. Hockney's n_1/2, and the bytes that the link has under way.
    """
    return latency_s * bytes_per_s


def readers_to_fill(size: float, latency_s: float, bytes_per_s: float) -> int:
    """The fewest readers that fill the link: a request's seconds over the seconds of its bytes, rounded up."""
    return math.ceil(request_s(size, latency_s, bytes_per_s) / (size / bytes_per_s) - 1e-9)


def storage_factor(data: int, parity: int) -> float:
    """Bytes stored per byte of data by RS(data, parity); copies are RS(1, copies - 1)."""
    _valid(data, parity)
    return (data + parity) / data


def repair_reads(data: int, parity: int) -> int:
    """Pieces that are read to make one lost piece anew: `data` of a code, and one where there are copies.

    Each is as large as the lost one, so that `data` bytes are read over the network per byte that was lost.
    """
    _valid(data, parity)
    return data


def loss_probability(data: int, parity: int, lost: float) -> float:
    """The probability that data are gone, if each of data + parity pieces is lost by itself with probability `lost`.

    They are gone when more than `parity` pieces are. Independence is the weak point: a rack, a switch, a bad release
    take several at once, which is why the pieces are spread over racks.
    """
    _valid(data, parity)
    pieces = data + parity
    return sum(math.comb(pieces, i) * lost**i * (1 - lost) ** (pieces - i) for i in range(parity + 1, pieces + 1))


def checkpoint_bytes(parameters: float, bytes_per_parameter: float = 12.0) -> float:
    """The bytes of a checkpoint; by default float32 weights and both of Adam's moments."""
    return parameters * bytes_per_parameter


def checkpoint_s(size: float, *, store_bytes_per_s: float, nodes: int = 1, node_bytes_per_s: float = math.inf) -> float:
    """Seconds to write or read a checkpoint once: the store's bandwidth or that of all nodes together, the lesser."""
    return size / min(store_bytes_per_s, nodes * node_bytes_per_s)


def feed_bytes_per_s(tokens_per_s: float, token_bytes: float = 2.0) -> float:
    """What training on text reads: the tokens of a second, in two bytes or four each."""
    return tokens_per_s * token_bytes


def files_per_s(samples_per_s: float, shard_samples: int = 1) -> float:
    """Requests per second of all ranks, where a request brings `shard_samples` samples."""
    return samples_per_s / shard_samples


def _valid(data: int, parity: int) -> None:
    if data < 1 or parity < 0:
        raise ValueError(f"RS({data}, {parity}): expected at least one piece of data, and no negative number of parity")
