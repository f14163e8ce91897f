"""What a layer's forward and backward take on a rank, by cause: the accelerator's work and the collectives inside.

Tensor ranks sum twice in a layer and way; sequence parallelism cuts each sum in two halves of the same bytes
(Korthikanti et al. 2022, section 4.2.2). Context ranks gather keys and values beside attention, and only what is longer
than it shows. Every token is sent to its experts and back; DualPipe does it beside the pass
of another microbatch (DeepSeek-V3 report 2024, section 3.2.1). Where ZeRO shards weights, they are gathered beside the
computation of the layer before, forward and backward, and gradients leave beside it; again only the excess shows.
"""

from dataclasses import dataclass

from parallel_lab.model.config import GPTConfig
from parallel_lab.planner.compute import NUMBER_BYTES, Layer, head_s, layer, paced_s
from parallel_lab.planner.exchange import Exchange
from parallel_lab.planner.models import has_experts
from parallel_lab.planner.scheme import Scheme
from parallel_lab.planner.stages import Numbers, copies, layer_numbers

Parts = dict[str, float]  # seconds by cause


@dataclass(frozen=True)
class LayerPasses:
    """One layer, one microbatch: seconds by cause of forward and of backward, and of the latter the weights' half."""

    forward: Parts
    backward: Parts
    weight_s: float


@dataclass(frozen=True)
class Setting:
    """What all counts of a step have in common."""

    shape: GPTConfig
    scheme: Scheme
    exchange: Exchange
    overlap: bool

    @property
    def tokens(self) -> float:
        """Of a microbatch on a rank."""
        return self.scheme.microbatch * self.shape.seq / self.scheme.cp

    @property
    def activation_bytes(self) -> float:
        """Of the tensor between two layers, all tensor ranks together."""
        return NUMBER_BYTES * self.tokens * self.shape.width

    @property
    def gradient_bytes(self) -> int:
        """Of a parameter's gradient, as it is summed."""
        return 4 if self.scheme.states == "float32" or self._main_gradients else NUMBER_BYTES

    @property
    def _main_gradients(self) -> bool:
        return self.scheme.states == "megatron" and self.scheme.precision != "fp16"


def layer_passes(setting: Setting, place: int = 0) -> LayerPasses:
    """The layer at `place`."""
    scheme, constants = setting.scheme, setting.exchange.constants
    work = layer(setting.shape, scheme, setting.exchange.cluster.accelerator, constants, place)
    inside = _inside(setting, work, place)
    forward = {"products": work.products_s, "attention": work.attention_s, "elementwise": work.elementwise_s}
    backward = {
        "products": 2 * work.products_s,
        "attention": work.attention_back_s,
        "elementwise": 2 * work.elementwise_s,
        "recompute": work.again_s(scheme),
    }
    again = scheme.recompute == "full"
    forward |= inside
    backward |= {name: seconds * (2 if again else 1) for name, seconds in inside.items()}
    passes = 4 if again else 3
    for parts, count in ((forward, 1), (backward, passes - 1)):
        busy_s = sum(parts.values())
        parts["launch"] = paced_s(busy_s, count, passes, constants) - busy_s
    if scheme.states == "deepspeed":
        backward["framework"] = constants.deepspeed_s
    _add_weights(setting, forward, backward, place)
    return LayerPasses(forward, backward, work.weight_s)


def head_passes(setting: Setting) -> tuple[float, float]:
    """Forward and backward of the output layer and the loss."""
    exchange = setting.exchange
    forward_s = head_s(setting.shape, setting.scheme, exchange.cluster.accelerator, exchange.constants)
    return forward_s, 2 * forward_s


def _inside(setting: Setting, work: Layer, place: int) -> Parts:
    """Collectives of one layer and way."""
    scheme, exchange, shape = setting.scheme, setting.exchange, setting.shape
    sums_s = 2 * exchange.seconds("all_reduce", scheme.tp, 1, setting.activation_bytes)
    inside = {"tensor": sums_s}
    if scheme.cp > 1:
        keys_bytes = NUMBER_BYTES * scheme.microbatch * shape.seq * 2 * shape.kv_width / scheme.tp
        gather_s = exchange.seconds("all_gather", scheme.cp, scheme.tp, keys_bytes)
        inside["context"] = max(0.0, gather_s - work.attention_s) if setting.overlap else gather_s
    if scheme.ep > 1 and has_experts(shape, place):
        sent_bytes = setting.activation_bytes * shape.active_experts / (scheme.tp if scheme.sequence_parallel else 1)
        exchanged_s = 2 * exchange.seconds("all_to_all", scheme.ep, scheme.tp, sent_bytes)
        hidden_s = work.forward_s if scheme.schedule == "dualpipe_v" and setting.overlap else 0.0
        inside["experts"] = max(0.0, exchanged_s - hidden_s)
    return inside


def _add_weights(setting: Setting, forward: Parts, backward: Parts, place: int) -> None:
    """What ZeRO-3 gathers, and what ZeRO-2 and 3 scatter, for each microbatch."""
    zero = setting.scheme.zero
    if zero < 2 or setting.scheme.sharded == 1:
        return
    gather_s, scatter_s = weights_s(setting, place)
    gather_s *= zero == 3
    for parts, seconds in ((forward, gather_s), (backward, gather_s + scatter_s)):
        hidden_s = sum(parts.values()) if setting.overlap else 0.0
        parts["weights"] = max(0.0, seconds - hidden_s)


def weights_s(setting: Setting, place: int = 0) -> tuple[float, float]:
    """To gather the weights of a layer among the ranks that share them, and to scatter its gradients."""
    return shared_s(setting, layer_numbers(setting.shape, setting.scheme.tp, setting.scheme.ep, place))


def shared_s(setting: Setting, numbers: Numbers) -> tuple[float, float]:
    """To gather the weights `numbers` among the ranks that share them, and to scatter their gradients."""
    held, seconds, each = copies(numbers, setting.scheme), setting.exchange.seconds, setting.gradient_bytes
    gather_s = sum(seconds("all_gather", one.shards, one.stride, one.numbers * NUMBER_BYTES) for one in held)
    return gather_s, sum(seconds("reduce_scatter", one.shards, one.stride, one.numbers * each) for one in held)
