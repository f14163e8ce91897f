"""`prefetched_step`: gathers too late, too early or too often, and waits too soon, fail with their own messages."""

import pytest
import torch
import torch.distributed as dist
from grading import assert_ends_a_step, assert_found_out, by_value

by_value(__name__)
NAME = "prefetched_step"


class Chain:
    """The right answer, with what a usual mistake changes.

    Args:
        ahead: how many layers a gather in forward, and one in backward, runs ahead.
        at_once: whether a gather is waited for where it is issued.
        keeps_last: whether the last layer stays gathered from forward to backward.
        behind: after how many further layers a reduce-scatter is waited for.
        keeps: whether what was gathered stays.
    """

    def __init__(self, layers, shards, ahead=(1, 1), at_once=False, keeps_last=True, behind=1, keeps=False):
        self.layers, self.shards, self.n = layers, shards, dist.get_world_size()
        self.ahead, self.at_once, self.keeps_last, self.behind = ahead, at_once, keeps_last, behind
        self.coming, self.kept, self.keeps = {}, [], keeps

    def gather(self, i):
        if i in self.coming:
            return
        flat = torch.empty(self.n * len(self.shards[i]), dtype=torch.float64)
        work = dist.all_gather_into_tensor(flat, self.shards[i], async_op=True)
        if self.at_once:
            work.wait()
        self.coming[i] = flat, work

    def layer(self, i, upcoming):
        self.gather(i)
        flat, work = self.coming.pop(i)
        work.wait()
        self.kept += [flat] * self.keeps
        for other in upcoming:
            if 0 <= other < len(self.layers):
                self.gather(other)
        return flat

    def __call__(self, x, gradient_of_loss):
        inputs, parts, under_way = [], {}, []
        for i, layer in enumerate(self.layers):
            flat = self.layer(i, range(i + 1, i + 1 + self.ahead[0]))
            inputs.append(x)
            x = layer.forward(flat, x)
        if self.keeps_last:
            self.coming[i] = flat, Done()
        of_x = gradient_of_loss(x)
        for i in reversed(range(len(self.layers))):
            flat = self.layer(i, range(i - 1, i - 1 - self.ahead[1], -1))
            of_x, of_flat = self.layers[i].backward(flat, inputs.pop(), of_x)
            parts[i] = torch.empty_like(self.shards[i])
            under_way.append(dist.reduce_scatter_tensor(parts[i], of_flat, async_op=True))
            while len(under_way) > self.behind:
                under_way.pop(0).wait()
        for work in under_way:
            work.wait()
        return [parts[i] / self.n for i in range(len(self.layers))]


class Done:
    def wait(self):
        pass


def chain(**options):
    def answer(layers, shards, x, gradient_of_loss):
        return Chain(layers, shards, **options)(x, gradient_of_loss)

    return answer


when_needed = chain(ahead=(0, 0), keeps_last=False)
all_at_the_start = chain(ahead=(9, 1))
waits_at_once = chain(at_once=True)
forward_alone = chain(ahead=(1, 0))
last_layer_again = chain(keeps_last=False)
scatters_in_place = chain(behind=0)
keeps_what_it_gathered = chain(keeps=True)

CHEATS = [  # (answer, the test that sees through it, what it says)
    (all_at_the_start, 1, "the order of forward is G0 G1 G2 G3 G4 G5 F0 F1 "),
    (waits_at_once, 1, "rank 0: G1 was over before F0 began: it hides behind nothing"),
    (last_layer_again, 2, "the order of backward is G5 G4 B5 G3 .*; expected G4 B5 G3 "),
    (scatters_in_place, 3, "rank 0: R5 was over before B4 began: it hides behind nothing"),
    (keeps_what_it_gathered, 1, "in the forward of layer [23] holds .*, two gathered layers and inputs are"),
]


@pytest.mark.parametrize(
    ("cheat", "place", "said"), [pytest.param(*case, id=str(number)) for number, case in enumerate(CHEATS)]
)
def test_cheat_fails_with_its_message(cheat, place, said):
    assert_found_out(NAME, cheat, place, said)


STEPS = [  # (an answer that ends the step, what the next step's check says)
    (when_needed, "the order of forward is G0 F0 G1 F1 G2 F2 .*; expected G0 G1 F0 G2 F1 "),
    (forward_alone, "the order of backward is B5 G4 B4 G3 B3 .*; expected G4 B5 G3 "),
]


@pytest.mark.parametrize("step", range(1, len(STEPS) + 1))
def test_answer_of_a_step_passes_it_and_fails_the_next(step):
    assert_ends_a_step(NAME, step, *STEPS[step - 1])
