"""A font in which a browser sets MathML well, small enough to stand inside a page.

Browsers place scripts, fractions and roots by the `MATH` table of a font (OpenType 1.9, "MATH - The Mathematical
Typesetting Table"). Many machines with Linux have no font with such a table; there a `T` and its index stand on one
line. The letters here are those of STIX General, which comes with matplotlib under the SIL Open Font License 1.1; the
table and tall brackets are added, and the name is another one, as that license asks. The values are thousandths of an
em, near to those of STIX Two Math.
"""

import io
from collections.abc import Iterable
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib as mpl

# matplotlib brings fontTools: it cannot be installed without.
from fontTools.subset import Options, Subsetter
from fontTools.ttLib import TTFont, newTable
from fontTools.ttLib.tables import otTables

FAMILY = "Plab Math"
_TALLER = (1.25, 1.6, 2.1, 2.7, 3.4)  # heights of a bracket or root, beside its own
_STRETCH = "()[]{}|‖⌈⌉⌊⌋√"
_NAMES = (1, 3, 4, 6, 16)  # family, identifier, full name, name in PostScript, family again
_DROPPED = ["FFTM", "GPOS", "GSUB", "GDEF", "gasp"]
_PLAIN = {
    "ScriptPercentScaleDown": 72,
    "ScriptScriptPercentScaleDown": 58,
    "DelimitedSubFormulaMinHeight": 1300,
    "DisplayOperatorMinHeight": 1200,
    "RadicalDegreeBottomRaisePercent": 60,
}
_VALUES = {"MathLeading": 150, "AxisHeight": 250, "AccentBaseHeight": 450, "FlattenedAccentBaseHeight": 660}
_VALUES |= {"SubscriptShiftDown": 200, "SubscriptTopMax": 370, "SubscriptBaselineDropMin": 160}
_VALUES |= {"SuperscriptShiftUp": 360, "SuperscriptShiftUpCramped": 280, "SuperscriptBottomMin": 120}
_VALUES |= {"SuperscriptBaselineDropMax": 230, "SubSuperscriptGapMin": 150, "SuperscriptBottomMaxWithSubscript": 380}
_VALUES |= {"SpaceAfterScript": 40, "UpperLimitGapMin": 130, "UpperLimitBaselineRiseMin": 300}
_VALUES |= {"LowerLimitGapMin": 130, "LowerLimitBaselineDropMin": 600, "StackTopShiftUp": 470}
_VALUES |= {"StackTopDisplayStyleShiftUp": 780, "StackBottomShiftDown": 385, "StackBottomDisplayStyleShiftDown": 690}
_VALUES |= {"StackGapMin": 150, "StackDisplayStyleGapMin": 300, "StretchStackTopShiftUp": 800}
_VALUES |= {"StretchStackBottomShiftDown": 590, "StretchStackGapAboveMin": 70, "StretchStackGapBelowMin": 70}
_VALUES |= {"FractionNumeratorShiftUp": 480, "FractionNumeratorDisplayStyleShiftUp": 640}
_VALUES |= {"FractionDenominatorShiftDown": 440, "FractionDenominatorDisplayStyleShiftDown": 640}
_VALUES |= {"FractionNumeratorGapMin": 70, "FractionNumDisplayStyleGapMin": 140, "FractionRuleThickness": 50}
_VALUES |= {"FractionDenominatorGapMin": 100, "FractionDenomDisplayStyleGapMin": 170}
_VALUES |= {"SkewedFractionHorizontalGap": 350, "SkewedFractionVerticalGap": 70, "OverbarVerticalGap": 150}
_VALUES |= {"OverbarRuleThickness": 50, "OverbarExtraAscender": 50, "UnderbarVerticalGap": 150}
_VALUES |= {"UnderbarRuleThickness": 50, "UnderbarExtraDescender": 50, "RadicalVerticalGap": 160}
_VALUES |= {"RadicalDisplayStyleVerticalGap": 210, "RadicalRuleThickness": 50, "RadicalExtraAscender": 70}
_VALUES |= {"RadicalKernBeforeDegree": 65, "RadicalKernAfterDegree": -335}


def math_font(characters: Iterable[str]) -> bytes:
    """The font with these characters, digits, letters and brackets, as WOFF.

    Letters of mathematics in italics are added for each letter, since a browser shows `<mi>x</mi>` with them.
    """
    wanted = frozenset(characters) | frozenset(_STRETCH) | {chr(code) for code in range(0x20, 0x7F)}
    return _made(frozenset(map(ord, wanted)) | frozenset(range(0x1D434, 0x1D468)) | frozenset(range(0x1D6E2, 0x1D71C)))


@cache
def _made(codes: frozenset[int]) -> bytes:
    font: Any = TTFont(Path(mpl.get_data_path(), "fonts", "ttf", "STIXGeneral.ttf"))
    cutter = Subsetter(Options(layout_features=[], hinting=False, glyph_names=True, drop_tables=_DROPPED))
    cutter.populate(unicodes=codes | {0x210E})  # the italic h stands among the letterlike signs
    cutter.subset(font)
    names = font.getBestCmap()
    taller = {names[ord(sign)]: _taller(font, names[ord(sign)]) for sign in _STRETCH if ord(sign) in names}
    taller = {name: taller[name] for name in sorted(taller, key=font.getGlyphID)}  # as a Coverage has to be
    table: Any = newTable("MATH")
    values = _PLAIN | {name: _part("MathValueRecord", Value=number) for name, number in _VALUES.items()}
    inside = {"MathConstants": _part("MathConstants", **values), "MathVariants": _variants(taller)}
    table.table = _part("MATH", Version=0x00010000, MathGlyphInfo=None, **inside)
    font["MATH"] = table
    for one in font["name"].names:
        if one.nameID in _NAMES:
            one.string = FAMILY.replace(" ", "") if one.nameID == 6 else FAMILY
    font.flavor = "woff"
    out = io.BytesIO()
    font.save(out, reorderTables=False)
    return out.getvalue()


def _part(kind: str, **values: Any) -> Any:
    """A part of a table of OpenType; fontTools makes their classes when it is loaded."""
    made = getattr(otTables, kind)()
    for name, value in values.items():
        setattr(made, name, value)
    return made


def _taller(font: Any, name: str) -> list[tuple[str, int]]:
    """Adds taller copies of a glyph; their names and heights, with its own first."""
    glyphs, widths = font["glyf"], font["hmtx"]
    own = glyphs[name]
    found = [(name, own.yMax - own.yMin)]
    for factor in _TALLER:
        copy, wider = deepcopy(own), 1 + (factor - 1) * 0.25
        copy.coordinates.scale((wider, factor))
        copy.coordinates.toInt()
        new = f"{name}.x{round(100 * factor)}"
        glyphs[new] = copy
        copy.recalcBounds(glyphs)
        width, side = widths[name]
        widths[new] = (round(width * wider), round(side * wider))
        found.append((new, copy.yMax - copy.yMin))
    font.setGlyphOrder([*dict.fromkeys([*font.getGlyphOrder(), *(new for new, _ in found)])])
    return found


def _variants(taller: dict[str, list[tuple[str, int]]]) -> Any:
    """Which copies a browser may choose from, the lowest first."""
    chosen = [
        _part(
            "MathGlyphConstruction",
            GlyphAssembly=None,
            VariantCount=len(copies),
            MathGlyphVariantRecord=_records(copies),
        )
        for copies in taller.values()
    ]
    upright = {"VertGlyphCount": len(taller), "VertGlyphConstruction": chosen}
    across = {"HorizGlyphCoverage": None, "HorizGlyphConstruction": [], "HorizGlyphCount": 0}
    covered = _part("Coverage", glyphs=list(taller))
    return _part("MathVariants", MinConnectorOverlap=20, VertGlyphCoverage=covered, **upright, **across)


def _records(copies: list[tuple[str, int]]) -> list[Any]:
    return [_part("MathGlyphVariantRecord", VariantGlyph=name, AdvanceMeasurement=high) for name, high in copies]
