"""The gaps of chapter 21: which tp a model and a node allow, where pp may lie, and the regret of a planner."""

from parallel_lab.grading.exercise import Exercise
from parallel_lab.grading.gaps.forms import function_gap


def choose_tp_sizes(heads, kv_heads, gpus_per_node):
    """The sizes of tp in a node, rising: it divides heads and GPUs of a node, and divides kv_heads or is a multiple."""
    both = (n for n in range(1, gpus_per_node + 1) if heads % n == 0 and gpus_per_node % n == 0)
    return [n for n in both if kv_heads % n == 0 or n % kv_heads == 0]


def choose_least_pp(state_bytes, activation_bytes, memory_bytes, tp):
    """The least pp of 1, 2, 4, ... that fits; the bytes are those of the whole model and one microbatch, in 1F1B."""
    pp = 1
    while state_bytes / (tp * pp) + activation_bytes / tp > memory_bytes and pp < 4096:
        pp *= 2
    return pp


def choose_regret_of(predicted, measured):
    """By which share the layout that is predicted fastest is slower than the one that was measured fastest."""
    chosen = min(range(len(predicted)), key=predicted.__getitem__)
    return measured[chosen] / min(measured) - 1


def _any_size(heads, kv_heads, gpus_per_node):
    return [n for n in range(1, gpus_per_node + 1) if heads % n == 0 and gpus_per_node % n == 0]


def _only_kv(heads, kv_heads, gpus_per_node):
    return [n for n in choose_tp_sizes(heads, kv_heads, gpus_per_node) if kv_heads % n == 0]


def _powers_of_two(heads, kv_heads, gpus_per_node):
    return [n for n in choose_tp_sizes(heads, kv_heads, gpus_per_node) if n & (n - 1) == 0]


def _past_the_node(heads, kv_heads, gpus_per_node):
    return [n for n in range(1, heads + 1) if heads % n == 0 and (kv_heads % n == 0 or n % kv_heads == 0)]


def _activations_cut_too(state_bytes, activation_bytes, memory_bytes, tp):
    return choose_least_pp(state_bytes + activation_bytes, 0, memory_bytes, tp)


def _activations_whole(state_bytes, activation_bytes, memory_bytes, tp):
    return choose_least_pp(state_bytes, activation_bytes * tp, memory_bytes, tp)


def _state_alone(state_bytes, activation_bytes, memory_bytes, tp):
    return choose_least_pp(state_bytes, 0, memory_bytes, tp)


def _predicted_over(predicted, measured):
    chosen = min(range(len(predicted)), key=predicted.__getitem__)
    return predicted[chosen] / min(measured) - 1


def _error(predicted, measured):
    chosen = min(range(len(predicted)), key=predicted.__getitem__)
    return predicted[chosen] / measured[chosen] - 1


def _over_chosen(predicted, measured):
    chosen = min(range(len(predicted)), key=predicted.__getitem__)
    return 1 - min(measured) / measured[chosen]


GAPS: tuple[Exercise, ...] = (
    function_gap(
        choose_least_pp,
        tests={
            "State that does not fit": [(1.2e12, 4e11, 8e10, 8), (6e11, 6e10, 8e10, 4), (3.1e12, 3e11, 8e10, 8)],
            "State that fits": [(3e11, 1e11, 8e10, 8), (1e11, 1e10, 1.41e11, 1), (6e11, 1.6e11, 1e11, 8)],
        },
        mistakes={
            "How many microbatches does the first stage keep? Its layers are 1/pp of all.": _activations_cut_too,
            "tp cuts the activations, too.": _activations_whole,
            "State is not all that a rank holds.": _state_alone,
        },
    ),
    function_gap(
        choose_regret_of,
        tests={
            "Right and wrong choices": [([9.5, 10.1, 11.0], [9.6, 10.0, 10.8]), ([9.9, 9.7, 12.0], [9.6, 10.4, 12.4])],
            "A planner that errs by the same factor": [
                ([20.0, 22.0], [10.0, 11.0]),
                ([5.0, 6.0], [12.0, 10.0]),
            ],
        },
        mistakes={
            "A step takes as long as was measured, whatever was predicted.": _predicted_over,
            "That is the error of the prediction, and not what the choice costs.": _error,
            "The share is of the best time, which one could have had.": _over_chosen,
        },
    ),
    function_gap(
        choose_tp_sizes,
        tests={
            "Nodes of eight": [(64, 8, 8), (48, 48, 8), (32, 4, 8)],
            "Other nodes, other heads": [(128, 8, 72), (40, 8, 8), (96, 6, 4), (28, 4, 8), (96, 12, 72)],
        },
        mistakes={
            "Which key-value heads does a rank hold, if tp and their number do not fit into each other?": _any_size,
            "With more ranks than key-value heads, several ranks can hold a copy of one.": _only_kv,
            "The group must fill nodes evenly: what divides the GPUs of a node?": _past_the_node,
            "Not only powers of two divide a node of 72.": _powers_of_two,
        },
    ),
)
