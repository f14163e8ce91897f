from functools import cache

import torch
from independent.reading import read, ring_sent


def server_step(text):
    q = read(text, "{n} workers pull {gb} GB", "through {k} server", "one {gbit} Gbit/s link")
    slot_s = q.gb / q.k / (q.gbit / 8)  # one server's part of the parameters over one link
    pulled = {worker: [] for worker in range(q.n)}
    slot = 0
    while any(len(parts) < q.k for parts in pulled.values()):
        for server in range(q.k):  # the servers take turns: no two of them answer one worker at a time
            pulled[slot // q.k * q.k + (server + slot) % q.k].append((slot, server))
        slot += 1
    assert all(sorted(server for _, server in parts) == list(range(q.k)) for parts in pulled.values())
    taken = set()  # (slot, server): the servers' incoming links
    for parts in pulled.values():  # a worker pushes the parts in the order in which it got them, once it has all
        for place, (_, server) in enumerate(parts):
            at = parts[-1][0] + 1 + place
            assert (at, server) not in taken
            taken.add((at, server))
    return 1e3 * slot_s * (1 + max(at for at, _ in taken))


def overlapped_servers(text):
    q = read(text, "{n} workers", "through {k} server")
    links = {"a worker's, out": 1, "a worker's, in": 1}
    links |= {f"a server's, {way}": sum(1 / q.k for _ in range(q.n)) for way in ("in", "out")}
    return max(links.values()) / ring_sent(q.n, 1)


@cache
def adamw_bytes():
    weight = torch.nn.Parameter(torch.ones(64))
    optimizer = torch.optim.AdamW([weight])
    weight.sum().backward()
    optimizer.step()
    moments = [value for value in optimizer.state[weight].values() if value.shape == weight.shape]
    return sum(tensor.nbytes for tensor in (weight, *moments)) / weight.numel()


def shard_state(text):
    q = read(text, "{k} servers keep a model of {b} billion")
    return adamw_bytes() * q.b / q.k
