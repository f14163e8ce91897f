"""The step as a tree of terms: what the busiest pipeline rank spends, by cause, each with its formula and source."""

from collections.abc import Iterator

from parallel_lab.planner.stages import copies
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
    "gradient sum": ("the sum over data ranks, less what the last backward hides", "price of a ring"),
    "tables": ("first and last stage sum the gradients of the shared table", "price of a ring"),
    "optimizer": ("bytes of Adam's step / bandwidth, over the ranks that share it", _FITTED),
    "offload": ("gradients to the host and weights back", "PCIe 4 x16"),
    "bubble": ("from the simulated schedule: waits for other stages and for messages", "pipeline"),
}


def step_term(timing: Step) -> Term:
    """The step of the busiest rank: its passes, what it waits, and what comes after."""
    details = _details(timing)
    passes = [_term(name, seconds, details) for name, seconds in timing.passes.items()]
    tail = dict(timing.tail)
    gathered_s = tail.pop("weights")
    after = [_term(name, seconds, details) for name, seconds in tail.items()]
    after.append(Term("gathered weights", gathered_s, "s", "gathered after the optimizer's step, less what is hidden"))
    name = f"pipeline rank {timing.busiest} of {len(timing.busy_s)}, {timing.microbatches} microbatches; the sum of"
    return total("step", [*passes, _term("bubble", timing.bubble_s, details), *after], formula=name)


def rates(
    model_flops: float, hardware_flops: float, tokens: float, step_s: float, gpus: int, peak: float
) -> list[Term]:
    """Model and hardware FLOPs utilization and tokens per second, each with what it is made of."""
    step = Term("time of a step", step_s, "s")
    all_s = (step, Term("accelerators", gpus), Term("peak", peak, "FLOP/s", source="data sheet"))
    formula, source = "FLOPs of a step / (its time x accelerators x peak)", "Chowdhery et al. 2022, PaLM, appendix B"
    found = [
        Term(
            name,
            flops / (step_s * gpus * peak),
            "share",
            formula,
            source,
            parts,
            "other",
        )
        for name, flops in (("mfu", model_flops), ("hfu", hardware_flops))
        for parts in [(Term("FLOPs", flops, "FLOP"), *all_s)]
    ]
    each = (Term("tokens", tokens), step)
    return [*found, Term("tokens per second", tokens / step_s, "1/s", "tokens of a step / its time", "", each, "other")]


def _term(name: str, seconds: float, details: dict[str, tuple[Term, ...]]) -> Term:
    formula, source = _FORMULAS[name]
    return Term(name, seconds, "s", formula, source, details.get(name, ()), "other")


def _details(timing: Step) -> dict[str, tuple[Term, ...]]:
    """What some parts are made of: FLOPs and the share of the peak that they reach, bytes and the ring's bandwidth."""
    setting, scheme = timing.setting, timing.setting.scheme
    exchange, chip = setting.exchange, setting.exchange.cluster.accelerator
    flops, layers = timing.product_flops, sum(sum(timing.stages[k].values()) for k in timing.stages_of[timing.busiest])
    reached = flops / (timing.passes["products"] * chip.peak_flops_per_s(scheme.precision))
    found: dict[str, tuple[Term, ...]] = {
        "products": (Term("FLOPs", flops, "FLOP", "6 x weights x tokens"), Term("share of the peak", reached, "share")),
        "bubble": (Term("passes over", max(timing.ends_s), "s"), Term("busy", timing.busy_s[timing.busiest], "s")),
    }
    if scheme.tp > 1:
        ways = 3 if scheme.recompute == "full" else 2
        found["tensor"] = (
            Term("all-reduces", 2 * ways * layers * timing.microbatches, "", "2 for each layer and way"),
            Term("activation", setting.activation_bytes, "B", "2 x tokens x width"),
            Term("bandwidth of the ring", exchange.link(scheme.tp, 1).bytes_per_s, "B/s", "", _FITTED),
        )
    if scheme.data > 1:
        found["gradient sum"] = tuple(_summed(timing))
    return found


def _summed(timing: Step) -> Iterator[Term]:
    """What is summed over data ranks, and over which ring."""
    setting = timing.setting
    for of, one in zip(("", " of experts"), copies(timing.largest.numbers, setting.scheme), strict=False):
        each, bandwidth = setting.gradient_bytes, setting.exchange.link(one.ranks, one.stride).bytes_per_s
        yield Term(f"gradients{of}", one.numbers * each, "B", f"{each} bytes a parameter of the rank")
        yield Term(f"bandwidth of the ring{of}", bandwidth, "B/s", "", _FITTED)
