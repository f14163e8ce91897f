"""What a rank of a ring knows of its place, and how it swaps a tensor with two others."""

import sys

import cloudpickle
import torch.distributed as dist

# As from a notebook: ranks get the functions and need not import this module.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


def neighbors():
    n, rank = dist.get_world_size(), dist.get_rank()
    return n, rank, (rank + 1) % n, (rank - 1) % n


def swap(outgoing, to, incoming, source):
    if dist.get_world_size() == 1:
        return incoming.copy_(outgoing)
    for work in dist.batch_isend_irecv(
        [dist.P2POp(dist.isend, outgoing.contiguous(), to), dist.P2POp(dist.irecv, incoming, source)]
    ):
        work.wait()
    return incoming
