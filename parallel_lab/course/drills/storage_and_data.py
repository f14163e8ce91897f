"""Drills of chapter 17: requests, codes, bands, checkpoints, and readers that keep a rank fed."""

from random import Random

from parallel_lab.course.drills.engine import Drawn, problem
from parallel_lab.systems.data import minhash
from parallel_lab.systems.storage import formulas


@problem("data-packing", chapter="17")
def data_packing(dice: Random) -> Drawn:
    """How much faster one reader is with packed objects."""
    latency_ms, rate_mb = dice.choice((2, 5, 10, 20)), dice.choice((100, 200, 500, 1000))
    small_kb, large_mb = dice.choice((4, 16, 64)), dice.choice((8, 32, 64))
    slow, fast = (
        formulas.throughput(size, latency_ms / 1e3, rate_mb * 1e6) for size in (small_kb * 1e3, large_mb * 1e6)
    )
    small_ms, large_ms = latency_ms + small_kb / rate_mb, latency_ms + 1e3 * large_mb / rate_mb
    return Drawn(
        question=f"A store answers after {latency_ms} ms and sends {rate_mb} MB/s. One reader asks for one object after"
        f" another. How many times as many bytes per second does it get with objects of {large_mb} MB as with objects"
        f" of {small_kb} kB?",
        answer=fast / slow,
        unit="",
        steps=(
            f"A small object: {latency_ms} + {small_kb / rate_mb:.3g} = {small_ms:.4g} ms, so {slow / 1e6:.4g} MB/s.",
            f"A large: {latency_ms} + {1e3 * large_mb / rate_mb:.4g} = {large_ms:.4g} ms, so {fast / 1e6:.4g} MB/s.",
            f"{fast / 1e6:.4g} / {slow / 1e6:.4g} = {fast / slow:.4g}.",
        ),
        wrong=(
            (1e3 * large_mb / small_kb, "You compared sizes, as if an answer took no longer for more bytes."),
            (rate_mb * 1e6 / slow, "You let large objects come at the full rate. They wait for an answer, too."),
            (large_mb / small_kb, "You divided MB by kB."),
            (large_ms / small_ms, "That is how many times as long one object takes."),
        ),
    )


@problem("data-codes", chapter="17")
def data_codes(dice: Random) -> Drawn:
    """The disks that a code saves against copies."""
    data, parity = dice.choice(((4, 2), (6, 3), (8, 4), (10, 4), (12, 4)))
    size_pb, copies = dice.choice((1, 2, 5, 10)), dice.choice((2, 3))
    saved = size_pb * (copies - formulas.storage_factor(data, parity))
    return Drawn(
        question=f"{size_pb} PB are stored in {copies} copies. Stored with RS({data}, {parity}) instead, how many PB of"
        " disk does that save?",
        answer=saved,
        unit="PB",
        steps=(
            f"{copies} copies take {copies * size_pb} PB.",
            f"The code takes ({data} + {parity})/{data} = {formulas.storage_factor(data, parity):.4g} bytes per byte,"
            f" {size_pb * formulas.storage_factor(data, parity):.4g} PB; it survives {parity} losses, the copies"
            f" {copies - 1}.",
            f"Saved: {saved:.4g} PB.",
        ),
        wrong=(
            (
                size_pb * formulas.storage_factor(data, parity),
                "That is what the code takes. The question asks what it saves.",
            ),
            (size_pb * (copies - parity / data), "You stored the parity alone. The data are stored as well."),
            (size_pb * (copies - 1), "You compared with one copy. The code has parity beside the data."),
            (
                size_pb * copies * (1 - data / (data + parity)),
                "You took the parity's share of the disks for what is saved.",
            ),
        ),
    )


@problem("data-lsh", chapter="17")
def data_lsh(dice: Random) -> Drawn:
    """The chance that two documents become candidates."""
    bands, rows = dice.choice(((20, 5), (14, 8), (16, 4), (10, 6), (32, 4)))
    index = dice.choice((0.5, 0.6, 0.7, 0.8))
    chance = minhash.probability(index, bands, rows)
    return Drawn(
        question=f"MinHash signatures of {bands * rows} numbers are cut into {bands} bands of {rows} rows. Two"
        f" documents have a Jaccard index of {index}. With which probability in per cent do they become candidates?",
        answer=100 * chance,
        unit="%",
        steps=(
            f"A band agrees with probability {index}^{rows} = {index**rows:.4g}.",
            f"None of {bands} agrees with probability (1 - {index**rows:.4g})^{bands} = {1 - chance:.4g}.",
            f"So some band does: {100 * chance:.4g} %.",
        ),
        wrong=(
            (
                100 * minhash.probability(index, rows, bands),
                "You swapped bands and rows. All rows of one band must agree.",
            ),
            (100 * index**rows, "That is one band."),
            (100 * bands * index**rows, "You added up the chances. Then pairs that agree in two bands count twice."),
            (100 - 100 * chance, "That is the chance that they do not."),
        ),
    )


@problem("data-checkpoint", chapter="17")
def data_checkpoint(dice: Random) -> Drawn:
    """The seconds of a checkpoint, by the nodes or by the store."""
    parameters, nodes = dice.choice((8, 70, 405)), dice.choice((1, 16, 64, 256))
    node_gb, store_gb = dice.choice((2.5, 5, 25)), dice.choice((100, 500, 2000))
    size = formulas.checkpoint_bytes(parameters * 1e9)
    seconds = formulas.checkpoint_s(size, store_bytes_per_s=store_gb * 1e9, nodes=nodes, node_bytes_per_s=node_gb * 1e9)
    sent = nodes * node_gb
    return Drawn(
        question=f"A model of {parameters} B parameters saves 12 bytes for each (float32 weights and Adam's moments)."
        f" {nodes} nodes write with {node_gb} GB/s each into a store that takes {store_gb} GB/s. How many seconds does"
        " it take at least?",
        answer=seconds,
        unit="s",
        steps=(
            f"The checkpoint: {parameters} · 12 = {size / 1e9:,.0f} GB.",
            f"The nodes send {sent:,.4g} GB/s together, the store takes {store_gb}: {min(sent, store_gb):,.4g} GB/s.",
            f"{size / 1e9:,.0f} / {min(sent, store_gb):,.4g} = {seconds:,.4g} s.",
        ),
        wrong=(
            (size / 1e9 / max(sent, store_gb), "You took the faster of two limits."),
            (size / 1e9 / node_gb, "You let one node write all."),
            (size / 1e9 / (sent + store_gb), "You added up the rates. What nodes send is what the store takes."),
            (seconds / 6, "You saved 2 bytes for each parameter."),
            (seconds * 16 / 12, "You saved 16 bytes for each parameter."),
        ),
    )


@problem("data-fed", chapter="17")
def data_fed(dice: Random) -> Drawn:
    """The fewest readers with which a rank does not wait for data."""
    compute_ms, latency_ms = dice.choice((50, 100, 200)), dice.choice((20, 50, 100))
    batch_mb, rate_mb = dice.choice((16, 64, 100)), dice.choice((100, 200, 400))
    fetch_ms = latency_ms + 1e3 * batch_mb / rate_mb
    readers = -int(-fetch_ms // compute_ms)
    return Drawn(
        question=f"A step computes for {compute_ms} ms on a batch of {batch_mb} MB. A reader gets a batch in"
        f" {latency_ms} ms and {rate_mb} MB/s of its own. How many readers that fetch ahead does a rank"
        " need, so that it never waits in the long run?",
        answer=readers,
        unit="",
        steps=(
            f"One batch takes a reader {latency_ms} + {1e3 * batch_mb / rate_mb:.4g} = {fetch_ms:.4g} ms.",
            f"The rank eats {batch_mb / compute_ms * 1e3:,.4g} MB/s: its share of the network must carry that.",
            f"In the long run a batch must come each {compute_ms} ms: {fetch_ms:.4g} / {compute_ms} ="
            f" {fetch_ms / compute_ms:.3g}, rounded up {readers}.",
        ),
        wrong=(
            (fetch_ms // compute_ms, "You rounded down. Then the rank waits."),
            (-(-latency_ms // compute_ms), "You left out the time of the bytes."),
            (-int(-1e3 * batch_mb / rate_mb // compute_ms), "You left out the latency."),
            (fetch_ms / compute_ms, "There are no parts of readers: round it."),
        ),
    )
