"""DeepSeek-V3's published run, replayed in the simulator: pipeline of 16, 64 expert ranks, the exchange of tokens.

    share = fitted()                                 # with hidden exchanges the replay then takes 180,000 GPU hours
    replay(share).exchange_ratio                     # exchange / computing of a layer, forward
    replay(share, hidden=False).gpu_hours / 180_000  # what the run would cost if computing waited for each exchange

DeepSeek-AI 2024, "DeepSeek-V3 Technical Report" (arXiv 2412.19437): 2,048 H800; 37 B parameters a token; 61 layers of
width 7,168, all but three with experts (section 4.2); batches of 15,360 sequences of 4,096; 16 pipeline ranks; 64
expert ranks on 8 nodes, and a token goes to at most 4 of them; dispatched in 8 bits, combined in 16 (section 3.3.3);
180,000 GPU hours for 1e12 tokens (section 1).

Only the total is published, and `share` is fitted to it, so the total is not predicted. Predicted are what it would
cost not to hide the exchange, and the ratio of exchange to computing. Section 3.2.1 calls that ratio about 1:1, and
forward it comes out below a half here: the fitted computing is all that the run did besides, at a sixth of the peak of
8 bits, and the link has its full bandwidth. With products at twice the share the ratio would be twice as large.

Assumed: a microbatch is one sequence; chunks are equal, 1/32 of the model; a token's 4 nodes are drawn evenly, so that
3.5 of them are others; attention's scores are left out; the sum of gradients is hidden. The schedule is DualPipeV, in
which, as in DualPipe, forwards and backwards of two chunks meet on each rank.
"""

from dataclasses import dataclass

from parallel_lab.hybrid.machines import MACHINES
from parallel_lab.pipeline import dualpipe_v, with_messages
from parallel_lab.simulate import PassCost, simulate

GPUS, ACTIVE, WIDTH = 2048, 37e9, 7168
LAYERS, EXPERT_LAYERS = 61, 58
BATCH, SEQ, PP = 15_360, 4096, 16
OTHER_NODES = 4 * 7 / 8  # of the four that a token goes to, drawn from eight
EXCHANGED_BYTES = 1 + 2  # of a number: dispatched in 8 bits, and combined in 16; backward does the same
GPU_HOURS = 180_000.0  # published, for 1e12 tokens


@dataclass(frozen=True)
class ExpertReplay:
    """What came out, for products at `share` of the peak of 8 bits.

    Attributes:
        computing_s, exchange_s: Of one layer with experts and one sequence, forward.
        step_s: Simulated seconds of a step.
        idle: The share of the step in which an average rank neither computes nor exchanges.
    """

    computing_s: float
    exchange_s: float
    step_s: float
    idle: float

    @property
    def exchange_ratio(self) -> float:
        """Seconds on the slow link for each second of computing, forward; in backward it is half of that."""
        return self.exchange_s / self.computing_s

    @property
    def gpu_hours(self) -> float:
        """For 1e12 tokens."""
        return 1e12 / (BATCH * SEQ) * self.step_s * GPUS / 3600


def replay(share: float, *, hidden: bool = True) -> ExpertReplay:
    """A step; without `hidden` each pass waits for its exchanges."""
    machine, m = MACHINES["H800"], BATCH * PP // GPUS
    chunk_s = 2 * ACTIVE * SEQ / (2 * PP) / (share * machine.peak_flops_per_s)
    exchange_s = machine.slow.seconds(SEQ * WIDTH * EXCHANGED_BYTES * OTHER_NODES)
    waits_s = 0.0 if hidden else EXPERT_LAYERS / (2 * PP) * exchange_s
    message_s = machine.slow.seconds(SEQ * WIDTH * 2)
    passes = PassCost(chunk_s + waits_s, 2 * chunk_s + waits_s, chunk_s + waits_s, chunk_s, message_s)
    trace = simulate(with_messages(dualpipe_v(PP, m)), passes)
    return ExpertReplay(chunk_s * 2 * PP / LAYERS, exchange_s, trace.duration_s, trace.bubble())


def fitted() -> float:
    """The share of the peak at which the replay takes the published GPU hours."""
    share = 0.2
    while abs(off := replay(share).gpu_hours / GPU_HOURS - 1) > 1e-6:
        share *= 1 + off
    return share
