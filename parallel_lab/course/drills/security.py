"""Drills of chapter 19: keys to replace, messages under one key, ranks that Krum needs, and the epsilon of a run."""

import math
from random import Random

from parallel_lab.course.drills.engine import Drawn, problem

GCM_MESSAGES = 2**32  # under one key with random 96-bit nonces (NIST SP 800-38D)


@problem("security-keys", chapter="19")
def security_keys(dice: Random) -> Drawn:
    """The keys to replace after a host was broken into."""
    hosts, per_host = dice.choice((8, 16, 32, 64, 128)), dice.choice((4, 8))
    n = hosts * per_host
    inside, across = math.comb(per_host, 2), per_host * (n - per_host)
    return Drawn(
        question=f"{n:,} ranks, {per_host} per host, have one key per pair of ranks. Somebody was root on one of the"
        " hosts. How many keys must be replaced?",
        answer=inside + across,
        tolerance=0.001,
        steps=(
            f"In all there are n(n-1)/2 = {math.comb(n, 2):,} keys. The intruder has every key of which one end or both"
            " were on that host.",
            f"Both ends: {per_host} · {per_host - 1} / 2 = {inside}. One end: {per_host} · ({n:,} - {per_host}) ="
            f" {across:,}.",
            f"Together {inside + across:,}, {(inside + across) / math.comb(n, 2):.2%} of all; one key for the whole"
            f" job would be lost altogether. The keys to replace are {inside + across:,}.",
        ),
        wrong=(
            (per_host * (n - 1), "You counted the keys between two ranks of that host twice."),
            (across, "You left out the keys between two ranks of that host."),
            (n - 1, "That is one rank. Each rank on the host has keys."),
            (math.comb(n, 2), "Those are all keys. The intruder does not have those between two other hosts."),
            (inside, "Those are the keys inside the host. Its ranks talk with others, too."),
        ),
    )


@problem("security-nonces", chapter="19")
def security_nonces(dice: Random) -> Drawn:
    """How many checkpoints one key may encrypt."""
    billions, per_parameter = dice.choice((8, 70, 405, 671)), dice.choice((12, 14, 16))
    block_kib = dice.choice((16, 64, 256, 1024))
    size = billions * 1_000_000_000 * per_parameter
    blocks = size / (1024 * block_kib)
    saves = GCM_MESSAGES / blocks
    return Drawn(
        question=f"A checkpoint of {billions} billion parameters with {per_parameter} bytes each is encrypted by"
        f" AES-GCM in blocks of {block_kib} KiB, each with a random nonce of 96 bits, all under one key. How many"
        " checkpoints may that key encrypt, if it may encrypt 2^32 messages?",
        answer=saves,
        steps=(
            f"The checkpoint has {billions}e9 · {per_parameter} = {size / 1e9:,.0f} GB, which are"
            f" {size / 1e9:,.0f}e9 / {1024 * block_kib:,} = {blocks:,.0f} blocks.",
            f"2^32 = {GCM_MESSAGES:,} messages; the chance of a repeated nonce is then about 2^64 / 2^97 = 2^-33.",
            f"{GCM_MESSAGES:,} / {blocks:,.0f} = {saves:.4g} checkpoints.",
        ),
        wrong=(
            (blocks, "That is how many blocks a checkpoint has."),
            (GCM_MESSAGES, "You took a checkpoint for one message. Each block is one."),
            (saves * per_parameter, "You took a byte per parameter."),
            (1 / saves, "You divided the other way around."),
            (saves * per_parameter / 2, "You saved 2 bytes per parameter."),
        ),
    )


@problem("security-krum", chapter="19")
def security_krum(dice: Random) -> Drawn:
    """The hosts that a job needs so that Krum stands some false ones."""
    per_host, bad = dice.choice((1, 2, 4, 8)), dice.randint(1, 12)
    f = per_host * bad
    hosts = math.ceil((2 * f + 3) / per_host)
    return Drawn(
        question=f"Each host has {per_host} rank{'s'[: per_host > 1]}, and each rank sends a gradient of its own."
        f" Up to {bad} host{'s'[: bad > 1]} may be in wrong hands. How many hosts does the job need at least, so that"
        " the condition of Krum holds?",
        answer=hosts,
        tolerance=0.001,
        steps=(
            f"False ranks: f = {bad} · {per_host} = {f}.",
            f"Krum needs n ≥ 2f + 3 = {2 * f + 3} ranks.",
            f"{2 * f + 3} / {per_host} = {(2 * f + 3) / per_host:g} and so, rounded up, {hosts} hosts.",
        ),
        wrong=(
            (2 * bad + 3, "You counted a host as one rank. Each of its ranks sends a gradient."),
            (2 * f + 3, "Those are ranks. The question asks for hosts."),
            (
                math.ceil((3 * f + 1) / per_host),
                "That is 3f + 1, for agreement with liars. Krum has another condition.",
            ),
            (math.ceil((2 * f + 1) / per_host), "That is a plain majority. Krum needs more."),
            ((2 * f + 3) / per_host, "There are no parts of hosts: round it."),
        ),
    )


@problem("security-epsilon", chapter="19")
def security_epsilon(dice: Random) -> Drawn:
    """The epsilon of a run of the Gaussian mechanism, by Rényi divergence."""
    z, steps = dice.choice((8, 10, 16, 20, 30, 40)), dice.choice((20, 50, 100, 200, 400))
    exponent = dice.choice((5, 6))
    log = exponent * math.log(10)
    order = 1 + math.sqrt(2 * z**2 * log / steps)
    epsilon = steps / (2 * z**2) + math.sqrt(2 * steps * log) / z
    return Drawn(
        question=f"Each of {steps} steps clips every example's gradient to norm 1, adds up over *all* examples, with no"
        f" sampling, and adds normal noise with a deviation of z = {z}. A step has the Rényi divergence order/(2z²)"
        " between data sets that differ by one example more or less. What is ε at δ ="
        f" 1e-{exponent}, by ε = steps·order/(2z²) + ln(1/δ)/(order - 1) with the best real order?",
        answer=epsilon,
        steps=(
            f"Divergences add up: {steps} · order / (2 · {z}²) = {steps / (2 * z**2):.4g} · order;"
            f" ln(1/δ) = {log:.4g}.",
            f"The derivative is 0 where (order - 1)² = 2z² ln(1/δ)/steps, so the order is {order:.4g}.",
            f"ε = steps/(2z²) + sqrt(2 · steps · ln(1/δ))/z = {steps / (2 * z**2):.4g} +"
            f" {math.sqrt(2 * steps * log) / z:.4g} = {epsilon:.4g}.",
        ),
        wrong=(
            (steps / (2 * z**2), "You left out what δ costs."),
            (math.sqrt(2 * steps * log) / z, "You left out the divergence itself, and kept what δ costs."),
            (
                steps * (1 / (2 * z**2) + math.sqrt(2 * log) / z),
                "You added up the steps' ε. Divergences add up, and δ is paid once.",
            ),
            (order, "That is the best order."),
            (1 / (2 * z**2) + math.sqrt(2 * log) / z, "That is one step."),
        ),
    )
