from functools import cache

from independent.reading import idle, read, says

from parallel_lab.pipeline import gpipe, one_f_one_b, zb_h2

SCHEDULES = {"GPipe": gpipe, "1F1B": one_f_one_b, "ZB-H2": zb_h2}


def pipeline_bubble(text):
    q = read(text, "p = {p} ranks, m = {m} microbatches")
    v = read(text, "v = {v} chunks").v if says(text, "v = {} chunks") else 1
    return 100 * idle(q.p, v) / (q.m + idle(q.p, v))


def pipeline_microbatches(text):
    q = read(text, "p = {p} ranks and v = {v} chunks", "{percent} % of the work")
    m = q.p
    while 100 * idle(q.p, q.v) > q.percent * m + 1e-9:
        m += q.p
    return m


@cache
def most_held(kind, p, m, rank):
    held = most = 0
    row = SCHEDULES[kind](p, m).rows[rank]
    last = "W" if any(op.kind == "W" for op in row) else "B"
    for op in row:
        held += (op.kind == "F") - (op.kind == last)
        most = max(most, held + (op.kind == last))
    return most


def pipeline_activations(text):
    q = read(text, "{kind:w}, p = {p}, m = {m}", "leaves {gb} GB", "does rank {rank}")
    return most_held(q.kind, q.p, q.m, q.rank) * q.gb


def pipeline_message(text):
    q = read(text, "{b} billion parameters, h = {h}, p = {p} stages", "of {t} tokens", "of {gbit} Gbit/s")
    tera = read(text, "{tera} TFLOP/s").tera
    message_s = 16 * q.t * q.h / (q.gbit * 1e9)
    flops = 2 * q.b * 1e9 / q.p * q.t
    return 100 * message_s * (tera * 1e12) / flops
