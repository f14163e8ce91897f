"""Expert parallelism: experts cut over ranks, to which tokens travel and from which they return."""

from parallel_lab.expert_parallel import formulas
from parallel_lab.expert_parallel.apply import expert_parallel, expert_parameters, plan, reduce_gradients
from parallel_lab.expert_parallel.balance import mixtures, placement, share_sequences, update_bias
from parallel_lab.expert_parallel.dispatch import RemoteExperts
from parallel_lab.expert_parallel.router import Route, capacity, route
from parallel_lab.expert_parallel.state import full_state_dict, load_full_state_dict

__all__ = [
    "RemoteExperts",
    "Route",
    "capacity",
    "expert_parallel",
    "expert_parameters",
    "formulas",
    "full_state_dict",
    "load_full_state_dict",
    "mixtures",
    "placement",
    "plan",
    "reduce_gradients",
    "route",
    "share_sequences",
    "update_bias",
]
