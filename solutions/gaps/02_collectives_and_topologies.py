"""The gaps of chapter 02, solved."""

import torch
import torch.distributed as dist


def ring_chunks(rank, n):
    return [(rank - i) % n for i in range(2 * (n - 1))]


def ring_all_gather(own):
    rank, n = dist.get_rank(), dist.get_world_size()
    held = [torch.empty_like(own) for _ in range(n)]
    held[rank] = own
    for i in range(n - 1):
        sending = dist.isend(held[(rank - i) % n], (rank + 1) % n)
        dist.recv(held[(rank - i - 1) % n], (rank - 1) % n)
        sending.wait()
    return torch.stack(held)


def ring_elements(elements, n, rank):
    size, more = divmod(elements, n)
    not_sent = (rank + 1) % n, (rank + 2) % n  # in the first half, and in the second
    return 2 * elements - sum(size + (chunk < more) for chunk in not_sent)
