"""`hybrid_sharding`: another mean, or whole gradients between nodes, fail with their own messages."""

import pytest
import torch
import torch.distributed as dist
from grading import assert_ends_a_step, assert_found_out, assert_passes, by_value

from parallel_lab.grading.stuck import why_stuck

by_value(__name__)
NAME = "hybrid_sharding"


class Groups:
    """The ranks of this rank's node, and those of other nodes that have the same part."""

    def __init__(self, per_node):
        self.n, self.rank, self.per_node = dist.get_world_size(), dist.get_rank(), per_node
        nodes = [dist.new_group(list(range(first, first + per_node))) for first in range(0, self.n, per_node)]
        across = [dist.new_group(list(range(first, self.n, per_node))) for first in range(per_node)]
        self.node, self.across = nodes[self.rank // per_node], across[self.rank % per_node]

    def gather(self, shard):
        weights = torch.empty(self.per_node * len(shard), dtype=shard.dtype)
        dist.all_gather_into_tensor(weights, shard, group=self.node)
        return weights

    def part(self, of_weights):
        part = torch.empty(len(of_weights) // self.per_node, dtype=of_weights.dtype)
        dist.reduce_scatter_tensor(part, of_weights, group=self.node)
        dist.all_reduce(part, group=self.across)
        return part / self.n

    def cut(self, whole):
        return whole.chunk(self.per_node)[self.rank % self.per_node]


def trained(part, gather=Groups.gather):
    def answer(shard, gradient, steps, lr, per_node):
        groups = Groups(per_node)
        for step in range(steps):
            shard = shard - lr * part(groups, gradient(gather(groups, shard), step))
        return shard

    return answer


def of_the_node(groups, of_weights):
    part = torch.empty(len(of_weights) // groups.per_node, dtype=of_weights.dtype)
    dist.reduce_scatter_tensor(part, of_weights, group=groups.node)
    return part / groups.per_node


def divided_by_the_node(groups, of_weights):
    return groups.part(of_weights) * groups.n / groups.per_node


def whole_across_nodes(groups, of_weights):
    dist.all_reduce(of_weights)
    return groups.cut(of_weights) / groups.n


def whole_and_then_across(groups, of_weights):
    """All-reduce in the node, and then every rank takes the whole gradient across."""
    dist.all_reduce(of_weights, group=groups.node)
    dist.all_reduce(of_weights, group=groups.across)
    return groups.cut(of_weights) / groups.n


def gathered_over_all(groups, shard):
    """The same weights come from every node."""
    flat = torch.empty(groups.n * len(shard), dtype=shard.dtype)
    dist.all_gather_into_tensor(flat, shard)
    return flat[: groups.per_node * len(shard)].clone()


CHEATS = [  # (answer, the test that sees through it, what it says)
    (trained(of_the_node), 0, "at 4 ranks, .*: each node took the mean of its own ranks alone"),
    (trained(divided_by_the_node), 0, "at 4 ranks, .*: the sum was divided by the ranks of a node"),
    (
        trained(whole_across_nodes),
        1,
        "node 0 sent 2,880 B per step to other nodes; one all-reduce of each part sends 1,920 B",
    ),
    (trained(whole_and_then_across), 1, "node 0 sent 3,840 B per step to other nodes; one all-reduce of each part"),
    (trained(Groups.part, gathered_over_all), 1, "node 0 sent .* per step to other nodes"),
]


@pytest.mark.parametrize(
    ("cheat", "place", "said"), [pytest.param(*case, id=str(number)) for number, case in enumerate(CHEATS)]
)
def test_cheat_fails_with_its_message(cheat, place, said):
    assert_found_out(NAME, cheat, place, said)


def test_a_hang_in_new_group_is_told_what_new_group_wants():
    report = "rank 1 is busy at In[3], line 4: `across = dist.new_group([1, 3])`\nWhat is wrong: rank 0 waits for it"
    assert "every rank makes every group" in why_stuck(report)


def by_a_mesh(shard, gradient, steps, lr, per_node):
    """Not a cheat: a device mesh makes the groups."""
    shape = (dist.get_world_size() // per_node, per_node)
    mesh = dist.init_device_mesh("cpu", shape, mesh_dim_names=("replicate", "shard"))
    node, across = mesh.get_group("shard"), mesh.get_group("replicate")
    for step in range(steps):
        weights = [torch.empty_like(shard) for _ in range(per_node)]
        dist.all_gather(weights, shard, group=node)
        part = torch.empty_like(shard)
        dist.reduce_scatter(part, list(gradient(torch.cat(weights), step).chunk(per_node)), group=node)
        dist.all_reduce(part, group=across)
        shard = shard - lr * part / dist.get_world_size()
    return shard


def test_another_right_answer_passes():
    assert_passes(NAME, by_a_mesh)


def test_answer_of_a_step_passes_it_and_fails_the_next():
    assert_ends_a_step(NAME, 1, trained(whole_across_nodes), "node 0 sent 2,880 B per step to other nodes")
