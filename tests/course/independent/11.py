import numpy as np
from independent.reading import half_ring_sent, read, ring_sent


def hybrid_groups(text):
    q = read(text, "pp {pp} x dp {dp} x cp {cp} x tp {tp}", "in the {axis:w} group of rank {rank}")
    mesh = np.arange(q.pp * q.dp * q.cp * q.tp).reshape(q.pp, q.dp, q.cp, q.tp)
    along = ("pp", "dp", "cp", "tp").index(q.axis)
    groups = np.moveaxis(mesh, along, -1).reshape(-1, mesh.shape[along])
    return int(max(next(group for group in groups if q.rank in group)))


def hybrid_bytes(text):
    q = read(text, "{b} billion parameters, {blocks} blocks, h = {h}, on pp {pp} x dp {dp} x tp {tp}. {m} microbatches")
    q.seq, q.axis = read(text, "of {seq} tokens").seq, read(text, "send along {axis:w}").axis
    activation, sent = 2 * q.seq * q.h, 0.0
    if q.axis == "dp":
        own = q.b * 1e9 / q.pp / q.tp
        return (half_ring_sent(q.dp, 4 * own) + half_ring_sent(q.dp, 2 * own)) / 1e9
    for _ in range(q.m):
        if q.axis == "tp":
            sent += sum(4 * ring_sent(q.tp, activation) for _ in range(q.blocks // q.pp))
        else:
            sent += activation / q.tp  # to the stage behind
            sent += activation / q.tp  # a gradient to the stage before
    return sent / 1e9


def hybrid_memory(text):
    q = read(text, "{b} billion parameters on pp {pp} x dp {dp} x cp {cp} x tp {tp}")
    q.weight = read(text, "weights of {size} bytes").size
    q.gradient, q.master = read(text, "gradients of {size} are").size, read(text, "{size} bytes of master").size
    world = q.pp * q.dp * q.cp * q.tp
    copies = q.dp * q.cp
    everywhere = q.b * copies * (q.weight + q.gradient) + q.b * q.master  # over all GPUs
    return everywhere / world


def hybrid_norm(text):
    q = read(text, "pp {pp} x dp {dp} x tp {tp}", "that tp cuts add up to {cut}", "(norms) to {copied}")
    squares = {}
    for stage, replica, place in np.ndindex(q.pp, q.dp, q.tp):
        del replica  # holds what the others hold
        squares[stage, place, "cut"] = q.cut
        squares[stage, "copied"] = q.copied
    return sum(squares.values()) ** 0.5
