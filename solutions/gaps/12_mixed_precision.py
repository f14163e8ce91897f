"""The gaps of chapter 12, solved."""


def prec_largest(exponent_bits, mantissa_bits):
    highest = 2 ** (exponent_bits - 1) - 1
    return (2 - 2**-mantissa_bits) * 2**highest


def prec_scale_after(scale, finite, interval):
    clean = 0
    for fine in finite:
        if not fine:
            scale, clean = scale / 2, 0
            continue
        clean += 1
        if clean == interval:
            scale, clean = scale * 2, 0
    return scale


def prec_skips(found, groups):
    skips = list(found)
    for _ in groups:
        for group in groups:
            together = any(skips[rank] for rank in group)
            for rank in group:
                skips[rank] = together or skips[rank]
    return skips
