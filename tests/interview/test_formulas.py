"""Formulas of cards as TeX: which spans are formulas, and that each of them can be set."""

import re

import pytest
from latex2mathml.converter import convert

from parallel_lab.course.questions import ask, index
from parallel_lab.interview.atoms import atoms
from parallel_lab.interview.formulas import tex

_SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")


def spans():
    cards = (text for name in index() for text in ask(name).sections.values())
    cut = (text for atom in atoms().values() for text in (atom.ask, atom.zh, atom.answer, atom.answer_zh))
    return sorted({span for text in [*cards, *cut] for span in _SPAN.findall(text)})


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("(p-1)/m", r"\frac{p-1}{m}"),
        ("2 (n-1)/n * S/W", r"2 \frac{n-1}{n} \cdot \frac{S}{W}"),
        ("2 (n-1)/n S", r"2 \frac{n-1}{n} S"),
        ("T(p) = T(1) (m+p-1)/(mp)", r"T(p) = T(1) \frac{m+p-1}{mp}"),
        ("P_0 / 2 P_1", r"P_{0} / 2 P_{1}"),  # of which of the two it is a fraction, the text does not say
        ("(1 - J^rows)/m", r"\frac{1 - J^{\text{rows}}}{m}"),
        ("T_work* = sqrt(2 T_save M)", r"T_{\text{work}}^{*} = \sqrt{2 T_{\text{save}} M}"),
        ("b_i / speed_i", r"\frac{b_{i}}{\text{speed}_{i}}"),
        ("Pr[finish] = (1-ψ)^(n steps)", r"\Pr [\text{finish}] = (1-\psi )^{n \text{steps}}"),
        ("-ln Pr[token_i | the tokens before]", r"-\ln \Pr [\text{token}_{i} \vert \text{ the tokens before}]"),
        ("34 s b h + 5 a s² b", "34 s b h + 5 a s^{2} b"),
        ("B_crit", r"B_{\text{crit}}"),
        ("pos_i neg_j AUC_ij / (pos neg)", r"\text{pos}_{i} \text{neg}_{j} \text{AUC}_{ij} / (\text{pos neg})"),
        ("6 N D / (n F) / 2", "6 N D / (n F) / 2"),  # no fraction of (n F) / 2
        ("n <= batch tokens / t", r"n \le \text{batch tokens} / t"),
        ("T = 延迟 + S / 带宽", r"T = \text{延迟} + \frac{S}{\text{带宽}}"),
        ("4 + 4 + 4 + 4 = 16", "4 + 4 + 4 + 4 = 16"),
        ("h", "h"),
    ],
)
def test_a_formula_is_set(code, expected):
    assert tex(code) == expected


@pytest.mark.parametrize(
    "code",
    ["all_reduce", "no_sync", ".grad", "optimizer.step()", "torch.compile", "NCCL_DEBUG=INFO", "--requeue", "wait",
     "find_unused_parameters=True", "pending == 0", "w -= step", "a2a+p2p", "if rank == 0:", "nccl-tests", "Shard(0)",
     "400e12 / 50e9", "2 ** -8"],
)  # fmt: skip
def test_code_of_a_program_stays_code(code):
    assert tex(code) is None


def test_every_formula_of_cards_and_atoms_is_valid_tex():
    found = {code: text for code in spans() if (text := tex(code))}
    assert len(found) > 150
    for code, text in found.items():
        seen = re.sub(r"<[^>]*>", "", convert(text))
        assert "\\" not in seen and "{" not in seen, (code, text, seen)
        assert text.count("{") == text.count("}"), (code, text)
