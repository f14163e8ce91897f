from fractions import Fraction
from math import comb

from independent.reading import least, read


def data_packing(text):
    q = read(text, "after {ms} ms and sends {rate} MB/s", "objects of {mb} MB as", "objects of {kb} kB")
    got = {}
    for size_mb in (q.mb, q.kb / 1000):
        objects = 1000
        seconds = sum(q.ms / 1000 + size_mb / q.rate for _ in range(objects))
        got[size_mb] = objects * size_mb / seconds
    return got[q.mb] / got[q.kb / 1000]


def data_codes(text):
    q = read(text, "{pb} PB are stored in {copies} copies", "RS({data}, {parity})")
    block = Fraction(q.pb, q.data)
    return float(sum(q.pb for _ in range(q.copies)) - sum(block for _ in range(q.data + q.parity)))


def data_lsh(text):
    q = read(text, "into {bands} bands of {rows} rows", "Jaccard index of {index}.")
    agrees = Fraction(1)
    for _ in range(q.rows):
        agrees *= Fraction(str(q.index))
    some = (comb(q.bands, k) * agrees**k * (1 - agrees) ** (q.bands - k) for k in range(1, q.bands + 1))
    return float(100 * sum(some))


def data_checkpoint(text):
    q = read(text, "of {b} B parameters saves {size} bytes", "{nodes} nodes write with {node} GB/s")
    store = read(text, "takes {store} GB/s").store
    return least(lambda s: min(s * sum([q.node] * q.nodes), s * store) >= q.b * q.size, 0, 1e6)


def data_fed(text):
    q = read(text, "computes for {compute} ms on a batch of {mb} MB", "in {latency} ms and {rate} MB/s")
    fetch_ms = q.latency + Fraction(1000 * q.mb, q.rate)

    def waits(readers, steps=200):
        now, late = Fraction(0), 0
        for batch in range(steps):  # a reader takes up the next batch as soon as it has one
            ready = fetch_ms * (batch // readers + 1)
            late += batch > steps // 2 and ready > now
            now = max(now, ready) + q.compute
        return late

    return next(readers for readers in range(1, 100) if not waits(readers))
