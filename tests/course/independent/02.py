from functools import cache

from independent.reading import read, ring_rounds, ring_sent

from parallel_lab.collectives import hierarchical


def ring_bytes(text):
    q = read(text, "{n} ranks all-reduce {mb} MB")
    return ring_sent(q.n, q.mb)


def ring_time(text):
    q = read(text, "{n} ranks all-reduce {mb} MB", "α = {micros} µs", "W = {gb} GB/s")
    return sum(q.micros * 1e-3 + q.mb / q.n / q.gb for _ in range(ring_rounds(q.n)))


def bus_bandwidth(text):
    q = read(text, "all-reduce {gb} GB on {n} GPUs in {ms} ms")
    return ring_sent(q.n, q.gb) / (q.ms / 1e3)  # what a link carries


@cache
def leaves_a_node(nodes):
    sent = sum(ring_sent(nodes, 1 / 8) for _ in range(8))  # a ring over the nodes for each GPU's eighth
    if nodes <= 8:
        plan = hierarchical.all_reduce_plan(nodes, 8)
        leaving = [plan.extents[op.part] for row in plan.rows[:8] for op in row if op.kind == "send" and op.peer >= 8]
        assert abs(sum(last - first for first, last in leaving) / plan.leaves - sent) < 1e-12
    return sent


def node_egress(text):
    q = read(text, "{nodes} nodes of 8 GPUs all-reduce {gb} GB", "has {cards} card(s) of {gbit} Gbit/s")
    return 1e3 * leaves_a_node(q.nodes) * q.gb / (q.cards * q.gbit / 8)
