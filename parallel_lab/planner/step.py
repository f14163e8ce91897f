"""A step: the passes of the pipeline, simulated; then the sum over data ranks and the optimizer.

The passes of each stage are the passes of its layers; the first stage looks up embeddings, which costs next to nothing,
and the last has the output layer and the loss. What the pipeline takes is what `pipe` says of the schedule with these
seconds. What is left when the passes are over: of the gradients, all of their sum, or where it runs beside the last
backward, what that does not hide; the optimizer's step; and with ZeRO the weights that are gathered, which the next
forward hides. Sums over replicas of a sharding group, and of the tables that first and last stage share, come on top.
"""

from dataclasses import dataclass
from functools import cached_property, partial
from itertools import accumulate

from parallel_lab.planner.compute import NUMBER_BYTES, optimizer_s
from parallel_lab.planner.models import has_experts, matrices
from parallel_lab.planner.passes import LayerPasses, Parts, Setting, head_passes, layer_passes, shared_s, weights_s
from parallel_lab.planner.pipe import Seconds, compiled, finish_s
from parallel_lab.planner.scheme import TWO_CHUNKS
from parallel_lab.planner.stages import Part, copies, part, split, table_numbers

UNSPLIT = ("gpipe", "1f1b", "interleaved")
NO_BARRIER = ("zb_h1", "zb_h2", "zb_v")  # each rank begins its next step on its own (Qi et al. 2024, section 4)
HOST_BYTES_PER_S = 25e9  # PCIe 4, 16 lanes: 32 GB/s by its data sheet


@dataclass(frozen=True)
class Step:
    """What a step takes.

    Attributes:
        setting: model, scheme, cluster, constants.
        batch: sequences, over all ranks.
    """

    setting: Setting
    batch: int

    @property
    def microbatches(self) -> int:
        """That go through each pipeline."""
        return max(1, self.setting.scheme.microbatches(self.batch))

    @cached_property
    def layers(self) -> dict[bool, LayerPasses]:
        """The passes of a layer, of those with experts under True."""
        shape = self.setting.shape
        kinds = {has_experts(shape, place): place for place in (0, shape.layers - 1)}
        return {kind: layer_passes(self.setting, place) for kind, place in kinds.items()}

    @cached_property
    def stages(self) -> list[dict[bool, int]]:
        """How many layers of each kind a stage has."""
        shape = self.setting.shape
        counts = []
        for places in split(shape, self.setting.scheme):
            dense = sum(not has_experts(shape, place) for place in places) if shape.experts > 1 else len(places)
            counts.append({False: dense, True: len(places) - dense})
        return counts

    @cached_property
    def head_s(self) -> tuple[float, float]:
        """Forward and backward of the output layer."""
        return head_passes(self.setting)

    @cached_property
    def seconds(self) -> Seconds:
        """Of the passes of each stage."""
        each = {
            kind: (sum(one.forward.values()), sum(one.backward.values()) - one.weight_s, one.weight_s)
            for kind, one in self.layers.items()
        }
        forward_s, input_s, weight_s = (
            [sum(count * each[kind][place] for kind, count in counts.items() if count) for counts in self.stages]
            for place in range(3)
        )
        forward_s[-1] += self.head_s[0]
        input_s[-1] += self.head_s[1] / 2
        weight_s[-1] += self.head_s[1] / 2
        if not self.blocking:
            return Seconds(forward_s, input_s, weight_s, self.message_s)
        sent = [self.message_s] * (len(forward_s) - 1)
        forward_s = [each + extra for each, extra in zip(forward_s, [*sent, 0.0], strict=True)]
        input_s = [each + extra for each, extra in zip(input_s, [0.0, *sent], strict=True)]
        return Seconds(forward_s, input_s, weight_s, 0.0)

    @property
    def blocking(self) -> bool:
        """Whether a rank waits until its message has arrived, as in Megatron-LM of 2021 to 2023."""
        return not self.setting.overlap and self.setting.scheme.schedule not in NO_BARRIER

    @cached_property
    def message_s(self) -> float:
        """An activation to the next stage: each tensor rank sends its part, and they gather it in the node."""
        setting, scheme = self.setting, self.setting.scheme
        if scheme.pp == 1:
            return 0.0
        whole = setting.activation_bytes
        sent_s = setting.exchange.message_s(scheme.data * scheme.tp, scheme.pp, whole / scheme.tp)
        gathered = 0.0 if scheme.sequence_parallel else whole
        return sent_s + setting.exchange.seconds("all_gather", scheme.tp, 1, gathered)

    @cached_property
    def ends_s(self) -> list[float]:
        """When each pipeline rank is through with its passes."""
        scheme = self.setting.scheme
        if scheme.pp == 1 and scheme.stages_each == 1:
            whole = self.seconds
            return [self.microbatches * (whole.forward_s[0] + whole.input_s[0] + whole.weight_s[0])]
        own = scheme.schedule in NO_BARRIER
        found = finish_s(scheme.schedule, scheme.pp, self.microbatches, scheme.stages_each, self.seconds, own)
        return [max(ends) for ends in zip(found, self.least_s, strict=True)]  # a straight line may fall short

    @cached_property
    def least_s(self) -> list[float]:
        """When each pipeline rank is through at the earliest, whatever the order of its passes.

        All stages of rank r are number r or higher: before it begins, stages 0 to r - 1 do a forward pass. Where
        backward is not split, its last pass is the backward of stage r, and those of stages r - 1 to 0 follow on their
        ranks. Without a barrier a rank's time is counted from its own first pass.
        """
        scheme, whole, ranks = self.setting.scheme, self.seconds, range(self.setting.scheme.pp)
        if scheme.schedule in NO_BARRIER:
            return self.busy_s
        before = [0.0, *accumulate(whole.forward_s[k] + whole.message_s for k in ranks)]
        ends = [before[rank] + self.busy_s[rank] for rank in ranks]
        if scheme.schedule in UNSPLIT:
            behind = [0.0, *accumulate(whole.input_s[k] + whole.weight_s[k] + whole.message_s for k in ranks)]
            ends[0] = max(ends[rank] + behind[rank] for rank in ranks)
        return ends

    @cached_property
    def busy_s(self) -> list[float]:
        """What each pipeline rank computes and exchanges inside its passes."""
        whole = self.seconds
        return [
            self.microbatches * sum(whole.forward_s[k] + whole.input_s[k] + whole.weight_s[k] for k in stages)
            for stages in self.stages_of
        ]

    @cached_property
    def stages_of(self) -> list[tuple[int, ...]]:
        """The stages of each pipeline rank."""
        scheme = self.setting.scheme
        if scheme.schedule in TWO_CHUNKS:
            return [(rank, 2 * scheme.pp - 1 - rank) for rank in range(scheme.pp)]
        return [tuple(range(rank, scheme.pp * scheme.stages_each, scheme.pp)) for rank in range(scheme.pp)]

    @cached_property
    def busiest(self) -> int:
        """The pipeline rank that has most to do."""
        return max(range(len(self.busy_s)), key=self.busy_s.__getitem__)

    @cached_property
    def tail(self) -> Parts:
        """What comes after the passes, by cause, on the rank with most numbers."""
        setting, scheme = self.setting, self.setting.scheme
        mine = self.largest
        sums_s, gather_s = self._sums_s(mine)
        hidden_s = self._last_backward_s(mine) if setting.overlap else 0.0
        first_s = self._first_forward_s(mine) if setting.overlap else 0.0
        numbers = sum(one.numbers / one.shards for one in copies(mine.numbers, scheme))
        parts = {
            "gradient sum": max(0.0, sums_s - hidden_s),
            "weights": max(0.0, gather_s - first_s),
            "tables": self._tables_s(),
            "optimizer": optimizer_s(numbers, setting.exchange.cluster.accelerator, setting.exchange.constants),
        }
        if scheme.offload == "optimizer":
            parts["offload"] = 2 * NUMBER_BYTES * numbers / HOST_BYTES_PER_S
        return parts

    @cached_property
    def largest(self) -> Part:
        """Of the first and the last pipeline rank the one with more numbers."""
        setting, last = self.setting, self.setting.scheme.pp - 1
        return max((part(setting.shape, setting.scheme, rank) for rank in {0, last}), key=lambda one: one.numbers.all)

    @property
    def product_flops(self) -> float:
        """FLOPs of the products in the passes of the busiest rank, forward and backward, without the head."""
        shape, scheme = self.setting.shape, self.setting.scheme
        ranges = split(shape, scheme)
        places = [place for stage in self.stages_of[self.busiest] for place in ranges[stage]]
        flops = sum(one.flops / (1 if one.cut == "none" else scheme.tp) for k in places for one in matrices(shape, k))
        return 3 * flops * self.setting.tokens * self.microbatches

    def _sums_s(self, mine: Part) -> tuple[float, float]:
        """To sum the gradients over data ranks, and to gather the weights after it."""
        setting, scheme = self.setting, self.setting.scheme
        if scheme.data == 1:
            return 0.0, 0.0
        all_reduce_s, each = partial(setting.exchange.seconds, "all_reduce"), setting.gradient_bytes
        between_s = sum(
            all_reduce_s(one.ranks // one.shards, one.stride * one.shards, each * one.numbers / one.shards)
            for one in copies(mine.numbers, scheme)
        )
        if scheme.zero == 0:
            return between_s, 0.0
        if scheme.zero == 3:  # scattered in every microbatch; the first layer's gather has nothing to hide behind
            return between_s + weights_s(setting)[1], weights_s(setting)[0]
        gather_s, scatter_s = shared_s(setting, mine.numbers)
        return between_s + (scatter_s if scheme.zero == 1 else 0.0), gather_s

    def _last_backward_s(self, mine: Part) -> float:
        return sum((self.seconds.input_s[k] + self.seconds.weight_s[k]) for k in self.stages_of[mine.rank])

    def _first_forward_s(self, mine: Part) -> float:
        return (
            0.0 if self.setting.scheme.zero == 3 else sum(self.seconds.forward_s[k] for k in self.stages_of[mine.rank])
        )

    def _tables_s(self) -> float:
        """First and last stage sum the gradients of the table that they share, where weights are tied."""
        setting, scheme = self.setting, self.setting.scheme
        if not setting.shape.tied or scheme.pp == 1:
            return 0.0
        table_bytes = table_numbers(setting.shape, scheme) * setting.gradient_bytes
        return setting.exchange.seconds("all_reduce", 2, scheme.tp * scheme.data, table_bytes)

    @cached_property
    def passes(self) -> Parts:
        """What the busiest rank does in its passes, by cause."""
        found: Parts = {}
        for stage in self.stages_of[self.busiest]:
            for kind, count in self.stages[stage].items():
                if count:
                    for parts in (self.layers[kind].forward, self.layers[kind].backward):
                        for name, seconds in parts.items():
                            found[name] = found.get(name, 0.0) + self.microbatches * count * seconds
        if self.blocking:
            sends = sum((stage > 0) + (stage < len(self.stages) - 1) for stage in self.stages_of[self.busiest])
            found["messages"] = self.microbatches * sends * self.message_s
        if len(self.stages) - 1 in self.stages_of[self.busiest]:
            found["head"] = self.microbatches * sum(self.head_s)
        return found

    @property
    def bubble_s(self) -> float:
        """For how long the busiest rank waits in the pipeline, messages included."""
        return max(0.0, max(self.ends_s) - self.busy_s[self.busiest])

    @property
    def step_s(self) -> float:
        """All of it."""
        return max(self.ends_s) + sum(self.tail.values())


def forget() -> None:
    """Forgets the schedules that were compiled."""
    compiled.cache_clear()
