from fractions import Fraction
from functools import cache
from math import log

import numpy as np
from independent.reading import lowest, read


@cache
def keys_lost(n, per_host):
    one, other = np.triu_indices(n, k=1)
    return int(((one < per_host) | (other < per_host)).sum())  # the first host was broken into


def security_keys(text):
    q = read(text, "{n} ranks, {per} per host")
    return keys_lost(q.n, q.per)


def security_nonces(text):
    q = read(text, "of {b} billion parameters with {size} bytes", "blocks of {kib} KiB", "encrypt 2^{power} messages")
    covered = (1 << q.power) * (q.kib << 10)  # bytes that one key may encrypt
    return float(Fraction(covered, q.b * q.size * 10**9))


def security_krum(text):
    q = read(text, "has {per} rank", "Up to {bad} host")
    hosts = 1
    while not hosts * q.per - q.bad * q.per - 2 > q.bad * q.per:  # Krum: n - f - 2 nearest, more than f of them
        hosts += 1
    return hosts


def security_epsilon(text):
    q = read(text, "Each of {steps} steps", "of z = {z}.", "at δ = 1e-{power}")

    def epsilon(order):
        return q.steps * order / (2 * q.z**2) + log(10**q.power) / (order - 1)

    return epsilon(lowest(epsilon, 1.0001, 1e4))
