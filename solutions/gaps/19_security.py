"""The gaps of chapter 19, solved."""

import hashlib


def sec_first_break(entries, head):
    before = ""
    for place, (text, digest) in enumerate(entries):
        if hashlib.sha256((before + text).encode()).hexdigest()[:8] != digest:
            return place
        before = digest
    return None if before == head else len(entries)


def sec_masked(value, rank, masks, modulus):
    for other, mask in enumerate(masks[rank]):
        if other > rank:
            value += mask
        elif other < rank:
            value -= mask
    return value % modulus
