"""What each schedule costs in closed form: idle time, held activations, messages. The tests hold all to the simulator.

p is the number of ranks, m of microbatches, v of chunks on a rank. T_F, T_I and T_W are the seconds of a microbatch's
passes F, I and W through all chunks of a rank together, and T_B = T_I + T_W; all ranks are equal. A schedule is named
as its function is, and the sources stand in its file.

Conventions differ. `bubble` is idle / (work + idle), a share of the time, with work = m (T_F + T_I + T_W), as in table
5 of Zero Bubble. Megatron-LM and the README of zero bubble divide by the work alone, which makes (p-1)/m of 1F1B's
(p-1)/(m+p-1); and DeepSeek's pass B is both halves, where Zero Bubble's B is our pass I.
"""

SCHEDULES = ("gpipe", "one_f_one_b", "interleaved", "looped_bfs", "zb_h1", "zb_h2", "zb_v", "dualpipe_v")
_V_SHAPED = ("zb_v", "dualpipe_v")  # two chunks on each rank, whatever v


def idle_s(
    schedule: str, p: int, m: int, *, v: int = 1, passes: tuple[float, float, float] = (1, 1, 1), own: bool = False
) -> float:
    """Seconds of one step in which a rank computes nothing; the step takes m (T_F + T_I + T_W) and these.

    Args:
        schedule: One of `SCHEDULES`.
        p: Ranks.
        m: Microbatches.
        v: Chunks on a rank, for `interleaved` and `looped_bfs`.
        passes: T_F, T_I and T_W.
        own: Within the longest window that a rank has of its own, as `Trace.bubble(own=True)` counts.

    Returns:
        Seconds, without messages.

    Raises:
        ValueError: There is no closed form: m is too small, or the passes differ in a V. Simulate the plan then.
    """
    _check(schedule, p, m, v)
    f, i, w = passes
    least = {"zb_h1": p, "zb_h2": 2 * p - 1, "zb_v": 2 * p - 1, "dualpipe_v": 2 * p}.get(schedule, 1)
    if m < least:
        raise ValueError(f"{schedule} with p = {p} has a closed form from m = {least} on, and m is {m}: simulate it")
    if schedule in _V_SHAPED and not f == i == w:
        raise ValueError(f"{schedule} has a closed form where T_F = T_I = T_W, and they are {f}, {i}, {w}: simulate it")
    each = {
        "gpipe": f + i + w,
        "one_f_one_b": f + i + w,
        "interleaved": (f + i + w) / v,
        "looped_bfs": (f + i + w) / v,
        "zb_h1": max(i, f + i - w, 0 if own else f),
        "zb_h2": max(i - f, f + i - 2 * w, 0 if own else f),
        "zb_v": 0 if own else f / 2,
        "dualpipe_v": f / 2,
    }[schedule]
    waits = (v - 1) * max(0, p - m) if schedule == "looped_bfs" else 0  # for the first microbatch to come round
    return (p - 1 + waits) * each


def bubble(schedule: str, p: int, m: int, **options) -> float:
    """The share of the time that is idle, from 0 to 1; `options` are those of `idle_s`."""
    idle = idle_s(schedule, p, m, **options)
    return idle / (m * sum(options.get("passes", (1, 1, 1))) + idle)


def peak_activations(schedule: str, p: int, m: int, rank: int, *, v: int = 1, weight_share: float = 1) -> float:
    """The most that `rank` holds at once, in microbatches through all its chunks.

    What a chunk's forward leaves behind is one v-th of it. It depends on the order of the passes alone, and not on
    their times.

    Args:
        schedule: One of `SCHEDULES`.
        p: Ranks.
        m: Microbatches.
        rank: Which rank.
        v: Chunks on a rank, for `interleaved` and `looped_bfs`.
        weight_share: S_W / S_B, the share of a microbatch's bytes that the pass W still needs when I is over, for H1
            and H2; 1 if I frees nothing.

    Raises:
        ValueError: The schedule is not known, or cannot have these numbers.
    """
    _check(schedule, p, m, v)
    if weight_share != 1 and schedule in _V_SHAPED:
        raise ValueError(f"what {schedule} holds has a closed form only if I frees nothing: simulate it")
    laps = 2 if schedule == "zb_h2" else 1
    ahead = min(laps * (p - 1 - rank) + 1, m)  # forwards before the first backward
    match schedule:
        case "gpipe" | "looped_bfs":
            return m
        case "one_f_one_b":
            return ahead
        case "interleaved":
            return min(2 * (p - 1 - rank) + (v - 1) * p + 1, v * m) / v
        case "zb_h1" | "zb_h2":
            return ahead + min(laps * rank, m - ahead) * weight_share
    return min(2 * p + (schedule == "dualpipe_v"), m + 1 + rank, 2 * m) / 2


def messages(schedule: str, p: int, *, v: int = 1, rank: int | None = None) -> int:
    """Messages per microbatch that `rank` sends, or all ranks together: an activation and a gradient over each cut.

    The turn of a V lies within the last rank, and nothing is sent there.
    """
    _check(schedule, p, p, v)
    chunks = 2 if schedule in _V_SHAPED else v
    if rank is None:
        return sum(messages(schedule, p, v=v, rank=one) for one in range(p))
    ends = (rank == 0) + (rank == p - 1)  # where the model begins or ends; of a V, both ends, or both sides of the turn
    return 2 * chunks - ends * (2 if schedule in _V_SHAPED else 1) if p > 1 else 0


def message_delays(schedule: str, p: int, m: int, *, v: int = 1) -> float:
    """How many message times longer a step is than without messages, where T_F = T_I = T_W and T_S is far smaller.

    In most schedules the way there and the way back count once. In 1F1B each round of p microbatches is a round trip of
    its own: the first rank has p under way, and the next enters when the first has come back. So it grows with m.

    Raises:
        ValueError: There is no closed form: m is below 2p, or not a multiple of p in 1F1B.
    """
    _check(schedule, p, m, v)
    if m < 2 * p or (schedule == "one_f_one_b" and m % p):
        raise ValueError(
            f"this has a closed form for m = 2p and more, in 1F1B for multiples of p; m is {m}: simulate it"
        )
    return {
        "gpipe": 2 * (p - 1),
        "one_f_one_b": 2 * (p - 1) * m // p + 2 * max(0, p - 2),
        "interleaved": 2 * (p * v - 1),
        "looped_bfs": 2 * (p - 1),
        "zb_h1": 4 * (p - 1),
        "zb_h2": p - 1,
        "zb_v": max(0, 5 * p - 7),
        "dualpipe_v": 4 * (p - 1),
    }[schedule] * (p > 1)


def _check(schedule: str, p: int, m: int, v: int) -> None:
    if schedule not in SCHEDULES:
        raise ValueError(f"{schedule!r} is no schedule: there are {', '.join(SCHEDULES)}")
    if min(p, m, v) < 1:
        raise ValueError(f"p = {p}, m = {m}, v = {v}: each is at least 1")
    if schedule == "interleaved" and m % p:
        raise ValueError(f"interleaving takes microbatches in rounds of p: m = {m} is no multiple of p = {p}")
