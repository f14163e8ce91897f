"""The gaps of chapter 13: masks over all layers at once, a scale for each row, and what top-k does not send."""

from parallel_lab.grading.exercise import Exercise
from parallel_lab.grading.gaps.forms import function_gap

LAYERS = [[0.9, -0.05, 0.3, -0.7], [0.02, -0.01, 0.4], [-2.0, 1.5, 0.06]]
ROWS = [[0.9, -0.31, 0.05], [-0.02, 0.011, 0.007], [3.1, -6.2, 1.3]]


def comp_global(layers, sparsity):
    """For each weight of each layer, whether it stays: of all weights together, the share `sparsity` goes."""
    sizes = sorted(abs(weight) for layer in layers for weight in layer)
    gone = round(sparsity * len(sizes))
    return [[abs(weight) >= sizes[gone] if gone < len(sizes) else False for weight in layer] for layer in layers]


def comp_codes(rows, bits):
    """The whole numbers that stand for the weights of each row, on a symmetric grid with a scale of its own."""
    top = 2 ** (bits - 1) - 1
    scales = [max(map(abs, row)) / top or 1.0 for row in rows]
    return [[round(weight / scale) for weight in row] for row, scale in zip(rows, scales, strict=True)]


def comp_feedback(gradients, keep):
    """What one rank sends in each step, with zeros where it sends nothing: the `keep` largest, with error feedback."""
    left, sent = [0.0] * len(gradients[0]), []
    for gradient in gradients:
        whole = [a + b for a, b in zip(left, gradient, strict=True)]
        chosen = sorted(range(len(whole)), key=lambda place: -abs(whole[place]))[:keep]
        sent.append([value if place in chosen else 0.0 for place, value in enumerate(whole)])
        left = [0.0 if place in chosen else value for place, value in enumerate(whole)]
    return sent


def _layer_by_layer(layers, sparsity):
    return [comp_global([layer], sparsity)[0] for layer in layers]


def _with_sign(layers, sparsity):
    shifted = [[weight + 100 for weight in layer] for layer in layers]
    return comp_global(shifted, sparsity)


def _one_scale(rows, bits):
    largest = max(abs(weight) for row in rows for weight in row)
    return [codes[:-1] for codes in comp_codes([[*row, largest] for row in rows], bits)]


def _one_code_more(rows, bits):
    return [[round(w * 2 ** (bits - 1) / (max(map(abs, row)) or 1.0)) for w in row] for row in rows]


def _forgets(gradients, keep):
    return [comp_feedback([gradient], keep)[0] for gradient in gradients]


def _last_only(gradients, keep):
    left, sent = [0.0] * len(gradients[0]), []
    for gradient in gradients:
        (now,) = comp_feedback([[a + b for a, b in zip(left, gradient, strict=True)]], keep)
        sent.append(now)
        left = [0.0 if value else rest for value, rest in zip(now, gradient, strict=True)]
    return sent


STEPS = [[4.0, -3.0, 0.5], [1.0, -1.5, 0.75], [2.25, 0.25, 0.875], [0.5, 0.125, 0.25]]

GAPS: tuple[Exercise, ...] = (
    function_gap(
        comp_global,
        tests={
            "Half, and a fifth": [(LAYERS, 0.5), (LAYERS, 0.2)],
            "Nothing and everything": [(LAYERS, 0.0), (LAYERS, 1.0)],
            "Whatever the weights": lambda dice: [
                ([[dice.gauss(0, spread) for _ in range(20)] for spread in (0.1, 1.0)], 0.6) for _ in range(3)
            ],
        },
        mistakes={
            "That takes the same share of every layer: one threshold for all takes more where weights are small.": (
                _layer_by_layer
            ),
            "A weight of -2 is large: magnitude is without the sign.": _with_sign,
        },
    ),
    function_gap(
        comp_codes,
        tests={
            "8 and 4 bits": [(ROWS, 8), (ROWS, 4)],
            "A row of zeros": [([[0.0, 0.0], [1.0, -0.3]], 8)],
            "Whatever the weights": lambda dice: [
                ([[dice.gauss(0, spread) for _ in range(8)] for spread in (0.01, 0.1, 1.0)], 8) for _ in range(3)
            ],
        },
        mistakes={
            "That is one scale for the matrix: rows with small weights get no more than a few grid points.": _one_scale,
            "The largest code is 2^(bits-1) - 1: one more does not fit into the bits.": _one_code_more,
        },
    ),
    function_gap(
        comp_feedback,
        tests={
            "One of three": [(STEPS, 1)],
            "Two of three, and all": [(STEPS, 2), (STEPS, 3)],
            "Whatever the gradients": lambda dice: [
                ([[dice.gauss(0, 1) for _ in range(6)] for _ in range(8)], keep) for keep in (1, 2)
            ],
        },
        mistakes={
            "What was not sent is lost here. Error feedback adds it to the next gradient before the choice.": _forgets,
            "Only the last gradient's rest is kept here: what waits must add up until it is sent.": _last_only,
        },
    ),
)
