"""Hierarchical all-reduce: fast links inside a node, slow links between nodes, and few bytes on the slow ones.

Cho et al., "BlueConnect: decomposing all-reduce for deep learning on heterogeneous network hierarchy", MLSys 2019.

First a ring reduce-scatter inside each node leaves every rank with one shard of its node's sum. Then the ranks with the
same shard, one in each node, all-reduce it in a ring across nodes. Last a ring all-gather inside each node puts the
shards together.

With S the bytes of the tensor, n ranks, n_i of them in each of n_e nodes (rank = node n_i + local):

| where         | bytes sent per rank | messages per rank | rounds      |
|---------------|---------------------|-------------------|-------------|
| inside nodes  | 2 S (n_i-1)/n_i     | 2 (n_i-1)         | 2 (n_i-1)   |
| between nodes | 2 S (n_e-1)/n       | 2 (n_e-1)         | 2 (n_e-1)   |

The sum is 2 S (n-1)/n, as in one ring over all ranks. But the bytes between nodes, 2 S (1 - 1/n_e) for each node, leave
by all n_i ranks at once, and the latency is that of 2 (n_i-1) + 2 (n_e-1) rounds instead of 2 (n-1). Halving-doubling
with near partners first is the same idea with log2 n exchanges each way for the rings: the same bytes inside nodes and
between them.

The tensor is cut into n leaves. Parts 0 to n-1 are the leaves; part n + i is shard i of the n_i shards, its n_e leaves.
"""

from parallel_lab.collectives.chunks import ChunkPlan, Message, assemble, leaves
from parallel_lab.collectives.ring import gather_messages, scatter_messages


def all_reduce_plan(nodes: int, ranks_per_node: int) -> ChunkPlan:
    """Every one of nodes · ranks_per_node ranks ends with the whole sum."""
    if nodes < 1 or ranks_per_node < 1:
        raise ValueError(f"nodes={nodes}, ranks_per_node={ranks_per_node}: both are at least 1")
    n = nodes * ranks_per_node
    first, second = ranks_per_node - 1, 2 * (nodes - 1)
    shards = [[n + s] for s in range(ranks_per_node)]
    messages: list[Message] = []
    for node in range(nodes):
        inside = range(node * ranks_per_node, (node + 1) * ranks_per_node)
        messages += scatter_messages(inside, shards)
        messages += gather_messages(inside, shards, first + second)
    for local in range(ranks_per_node):
        across = range(local, n, ranks_per_node)
        chunks = [[local * nodes + c] for c in range(nodes)]
        messages += scatter_messages(across, chunks, first)
        messages += gather_messages(across, chunks, first + nodes - 1)
    return assemble(n, messages, leaves(n) + tuple((s * nodes, (s + 1) * nodes) for s in range(ranks_per_node)))
