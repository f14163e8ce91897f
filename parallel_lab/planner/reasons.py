"""The step as a tree of terms: what the busiest pipeline rank spends, by cause, each with its formula and source."""

from parallel_lab.planner.step import Step
from parallel_lab.planner.terms import Term, total

_FITTED = "constants.yaml, fitted by calibrate"
_FORMULAS = {
    "products": ("FLOPs / (share x peak) + bytes / memory's bandwidth, for each product; three of forward's", _FITTED),
    "attention": ("FLOPs of its core at the share that attention reaches", "Dao et al. 2022; " + _FITTED),
    "elementwise": ("bytes that norms, sums and activation functions move / bandwidth", _FITTED),
    "recompute": ("forward once more, or of it attention's core", "Korthikanti et al. 2022"),
    "framework": ("seconds for each layer and microbatch under Megatron-DeepSpeed of 2022", _FITTED),
    "launch": ("what the host delays: the root of the sum of squares of both, less the accelerator", _FITTED),
    "head": ("products of the output layer, and the bytes of the logits", _FITTED),
    "messages": ("an activation or its gradient to the next rank, for which both wait", "price of a message"),
    "tensor": ("two all-reduces of an activation for each layer and way", "Shoeybi et al. 2019; price of a ring"),
    "context": ("a gather of keys and values, less what attention hides", "price of a ring"),
    "experts": ("two all-to-alls for each layer and way", "Lepikhin et al. 2021"),
    "weights": ("gathers of weights and scatters of gradients, less what the layer hides", "Rajbhandari et al. 2020"),
    "gradients": ("the sum over data ranks, less what the last backward hides", "price of a ring"),
    "tables": ("first and last stage sum the gradients of the shared table", "price of a ring"),
    "optimizer": ("bytes of Adam's step / bandwidth, over the ranks that share it", _FITTED),
    "offload": ("gradients to the host and weights back", "PCIe 4 x16"),
    "bubble": ("from the simulated schedule: waits for other stages and for messages", "pipeline"),
}


def step_term(timing: Step) -> Term:
    """The step of the busiest rank: its passes, what it waits, and what comes after."""
    passes = [_term(name, seconds) for name, seconds in timing.passes.items()]
    tail = dict(timing.tail)
    gathered_s = tail.pop("weights")
    after = [_term(name, seconds) for name, seconds in tail.items()]
    after.append(
        Term("gathered weights", gathered_s, "s", "weights after the optimizer's step, less what forward hides")
    )
    name = f"pipeline rank {timing.busiest} of {len(timing.busy_s)}, {timing.microbatches} microbatches; the sum of"
    return total("step", [*passes, _term("bubble", timing.bubble_s), *after], formula=name)


def _term(name: str, seconds: float) -> Term:
    formula, source = _FORMULAS[name]
    return Term(name, seconds, "s", formula, source)
