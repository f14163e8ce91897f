from fractions import Fraction

from independent.reading import numbers, read


def cp_bytes(text):
    q = read(text, "of {tokens} tokens over {n} ranks, width {h}, {heads} query heads and {kv} key-value heads")
    own, size = q.tokens // q.n, q.h // q.heads
    if "a ring" in text:
        block = {"k": own * q.kv * size, "v": own * q.kv * size}
        sent, holder = 0, 1
        for _ in ("forward", "backward"):  # the block of one rank walks past all others; each rank sends as much
            for _ in range(q.n - 1):
                sent += 2 * sum(block.values())
        while holder % q.n:  # the first other rank begins the sum of gradients, which walks on until it is home
            sent += 4 * sum(block.values())
            holder += 1
        return sent / 1e9
    moved = {"q": q.heads, "k": q.kv, "v": q.kv, "o": q.heads}
    leave = sum(Fraction(2 * own * heads * size, q.n) * (q.n - 1) for heads in moved.values())
    return float(leave * len(("forward", "backward"))) / 1e9


def cp_slowest(text):
    q = read(text, "over {n} ranks, each with {block} consecutive tokens")
    work = [sum(range(r * q.block + 1, (r + 1) * q.block + 1)) for r in range(q.n)]  # query i sees i + 1 keys
    return max(work) / (sum(work) / q.n)


def ep_dispatch(text):
    q = read(text, "{n} expert-parallel ranks with {tokens} tokens each, {chosen} experts per token, width {h}")
    to_each = Fraction(q.tokens * q.chosen, q.n)
    copies = sum(to_each for other in range(q.n) if other != 0)
    trips = ("dispatch", "combine", "gradients of combine", "gradients of dispatch")
    return float(sum(copies * q.h * 2 for _ in trips)) / 1e9


def ep_dropped(text):
    q = read(text, "{experts} experts, {tokens} tokens with {chosen} choice", "factor {factor}.")
    load = numbers(text[text.index("sends") : text.index("choices to the four")])
    fair = q.chosen * q.tokens / q.experts
    capacity = next(c for c in range(10**6) if c >= q.factor * fair)
    seats, dropped = [capacity] * q.experts, 0
    for expert, choices in enumerate(load):
        for _ in range(choices):
            dropped += not seats[expert]
            seats[expert] -= bool(seats[expert])
    return 100 * dropped / sum(load)
