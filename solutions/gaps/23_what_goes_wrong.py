"""The gaps of chapter 23, solved."""


def wrong_calls(calls):
    longest = max(len(own) for own in calls)
    rows = [[*own, *["nothing"] * (longest - len(own))] for own in calls]
    for number, made in enumerate(zip(*rows, strict=True)):
        usual = max(set(made), key=made.count)
        odd = [rank for rank, call in enumerate(made) if call != usual]
        if odd:
            return number, odd
    return None


def wrong_suspect(waited_s, exchange_s):
    short = [rank for rank, waited in enumerate(waited_s) if waited < 2 * exchange_s]
    if not short:
        return "slow link", -1
    if len(short) == 1:
        return "slow rank", short[0]
    return "neither", -1
