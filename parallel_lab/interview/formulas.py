r"""Formulas as TeX: cards write them as code, `2 (n-1)/n * S/W`; decks and printed pages set them as mathematics.

A span is a formula if all its words are letters, products of letters, functions, or one of a short list of words; all
else is code of a program and stays code. The order of what is written is kept. A fraction is stacked only where its
ends are beyond doubt: `(p-1)/m` is, `P_0 / 2 P_1` is not.
"""

import re
from functools import cache

_CODE = re.compile(
    r"[\"':\[\]{}\\@$%#]|--|\.\.|\w\(\)|[-+=]=|[A-Za-z_]\.[A-Za-z]|(?<![\w.])\.[a-z]|[A-Za-z]\d+[A-Za-z]"
    r"|\d[eE]-?\d|\*\*"  # numbers and powers as a program writes them
)
SPAN = re.compile(r"(?<!<pre>)<code>([^<]*)</code>")  # where HTML may have a formula
_LETTER = "A-Za-zŵℓͰ-Ͽ一-鿿"
_CHANCE = re.compile(r"\bPr\[([^\[\]]*)\]")
_INDEX = re.compile(r"\w?|[ijr]{2}")  # of a word
_BETWEEN = re.compile("over|of|all|and|to|per|share|product|the|one|two|is|for|Bits")
# What stands upright beside them: words, and the sizes of a layout.
_UPRIGHT = re.compile(
    "tokens?|bytes?|batch|latency|bandwidth|exchange|hidden|factor|peak|mean|nats|grad|rows|columns|right|wrong|"
    "questions|threshold|world|softmax|norm|key|pos|neg|AUC|MFU|GELU|GPUs|algbw|busbw|tr|pp|dp|cp|tp|ep|edp|fp|fn|"
    + _BETWEEN.pattern
)
_FUNCTIONS = {name: f"\\{name} " for name in ("ln", "log", "exp", "max", "min", "sin", "Pr")}
_FUNCTIONS |= {"log2": r"\log_2 ", "sum": r"\textstyle\sum "}
_NAMES = re.findall(
    r"\w+", "alpha beta gamma delta epsilon eta theta kappa lambda mu nu xi pi rho sigma tau phi psi omega"
)
_LETTERS = {name: f"\\{name} " for name in _NAMES}
_LETTERS |= dict(zip("αβγδεηθκλμνξπρστφψω", _LETTERS.values(), strict=True))
_SIGNS = {"<=": r"\le ", ">=": r"\ge ", "≤": r"\le ", "≥": r"\ge ", "<-": r"\leftarrow ", "<": r"\lt ", ">": r"\gt "}
_SIGNS |= {"*": r"\cdot ", "·": r"\cdot ", "×": r"\times ", "−": "-", "∇": r"\nabla ", "Σ": r"\textstyle\sum "}
_SIGNS |= {"≈": r"\approx ", "‖": r"\Vert ", "|": r"\vert ", "&": r"\& ", "~": r"\sim ", "ŵ": r"\hat{w}"}
_SIGNS |= {"Δ": r"\Delta ", "Λ": r"\Lambda ", "ℓ": r"\ell "}
_TEXT = r"\\text\{([^{}]*)\}"
_TEXTS = re.compile(rf"{_TEXT}(?:\s*{_TEXT})+")
_SIGN = re.compile(r"[·×/+^≤≥<>*≈]| = |\bPr\[")
_RAISED = str.maketrans("²³⁻¹⁰", "23-10")
_NAME = rf"[{_LETTER}]+\d*(?:_[{_LETTER}\d]+)?"
_TOKEN = re.compile(rf"<=|>=|<-|\d+(?:,\d{{3}})*(?:\.\d+)?|{_NAME}|\s+|[²³¹⁻⁰]+|.", re.DOTALL)
_GROUP = r"\((?:[^()]|\([^()]*\))*\)"
_ATOM = rf"(?:{_NAME}|\d[\d,.]*)"
_ROOT = re.compile(rf"sqrt({_GROUP})")
_POWER = re.compile(rf"\^({_GROUP}|\w+|\*)")
_ABOVE = (
    rf"(?:(?<![A-Za-z_/])(?<!log2)(?<!/ )(?P<group>{_GROUP})"  # in a / (b c) / d it is not (b c) that d divides
    rf"|(?:(?<=[-+=*·(,<>−])|(?<=[-+=*·,<>−] )|^)(?P<alone>{_ATOM}))"
)
_END = r"(?=\s*(?:$|[-+=*·,)<>≈≤≥−]))"
# Written closely, `(n-1)/n S`, a fraction ends with the letter below; written wide, only before a sign.
_FRACTION = re.compile(
    rf"{_ABOVE}(?:/(?P<close>{_GROUP}|{_ATOM})(?:{_END}|(?=\s))|\s*/\s*(?P<wide>{_GROUP}|{_ATOM}){_END})"
)


@cache
def tex(code: str) -> str | None:
    r"""The formula `code` as TeX without marks around it, or None where it is code of a program.

    `(p-1)/m` becomes `\frac{p-1}{m}`; names of several letters stand upright.
    """
    text = code.strip()
    words = re.findall(rf"[{_LETTER}][{_LETTER}\d_]*", text)
    if (
        not (words or _SIGN.search(text))
        or _CODE.search(_CHANCE.sub(r"Pr(\1)", text))
        or _UPRIGHT.fullmatch(text)
        or not all(_is_known(word, text) for word in words)
    ):
        return None
    return re.sub(r"\s+", " ", _set(text, [])).strip()


def _is_known(word: str, text: str) -> bool:
    """Whether `word` may stand in a formula; one that stands alone is a letter, perhaps with an index."""
    head, _, index = word.partition("_")
    if head in _LETTERS or head in _FUNCTIONS or head == "sqrt" or not head.isascii():
        return True
    if _UPRIGHT.fullmatch(head):
        return bool(_INDEX.fullmatch(index))
    if len(head) > 3 and head.isalpha() and head.islower():  # a word of the trade, where signs of a formula stand
        return bool(_INDEX.fullmatch(index) and _SIGN.search(text))
    letters = head.rstrip("0123456789")
    if index or text == word:
        return len(letters) == 1 and "_" not in index
    return len(letters) <= 3 and letters not in ("if", "for", "not", "net", "all")


def _set(text: str, made: list[str]) -> str:
    """A formula, or what stands inside one; what is made already stands in it as characters of the private area."""

    def keep(done: str) -> str:
        made.append(done)
        return chr(0xE000 + len(made) - 1)

    def inside(group: str) -> str:
        return _set(group[1:-1] if group.startswith("(") else group, made)

    def stacked(found: re.Match) -> str:
        return keep(
            rf"\frac{{{inside(found['group'] or found['alone'])}}}{{{inside(found['close'] or found['wide'])}}}"
        )

    text = re.sub(r"\*(?= *=)", keep("^{*}"), text)
    text = _ROOT.sub(lambda found: keep(rf"\sqrt{{{inside(found[1])}}}"), text)
    text = _POWER.sub(lambda found: keep(f"^{{{inside(found[1])}}}"), text)
    tokens = _TOKEN.findall(_FRACTION.sub(stacked, text))
    pieces = [made[ord(token) - 0xE000] if "\ue000" <= token <= "\uf8ff" else _piece(token) for token in tokens]
    return _TEXTS.sub(lambda found: rf"\text{{{' '.join(re.findall(_TEXT, found[0]))}}}", "".join(pieces))


def _piece(token: str) -> str:
    """One token; what is no letter, number or sign that TeX spells otherwise stays."""
    head, _, index = token.partition("_")
    if index:
        below = index if len(index) == 1 or set(index) <= set("ijk") else _LETTERS.get(index, rf"\text{{{index}}}")
        return f"{_piece(head)}_{{{below.strip()}}}"
    if known := _SIGNS.get(token) or _FUNCTIONS.get(token) or _LETTERS.get(token):
        return known
    if token[0] in "²³¹⁻⁰":
        return f"^{{{token.translate(_RAISED)}}}"
    if _BETWEEN.fullmatch(token):
        return rf"\text{{ {token} }}"
    if (
        _UPRIGHT.fullmatch(token)
        or "一" <= token[0] <= "鿿"
        or (len(token) > 3 and token.isalpha() and token.islower())
    ):
        return rf"\text{{{token}}}"
    if numbered := re.fullmatch(r"([A-Za-z])(\d+)", token):
        return f"{numbered[1]}_{{{numbered[2]}}}"
    return token.replace(",", "{,}") if token[0].isdigit() else token
