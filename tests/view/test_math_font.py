"""The font of formulas on printed pages: its table of mathematics, its letters, its tall brackets."""

import io

from fontTools.ttLib import TTFont

from parallel_lab.view.math_font import math_font


def test_the_font_has_the_letters_the_table_and_tall_brackets():
    data = math_font("∑≤漢")  # what the font has not, a browser takes elsewhere
    font = TTFont(io.BytesIO(data))
    letters = font.getBestCmap()
    assert len(data) < 60_000 and font.flavor == "woff"
    assert {ord(one) for one in "∑≤(√aZ7𝑥𝛼"} <= set(letters) and ord("漢") not in letters
    assert font["name"].getDebugName(1) == "Plab Math" and "STI Pub" in font["name"].getDebugName(0)
    table = font["MATH"].table
    assert table.MathConstants.SubscriptShiftDown.Value == 200 and table.MathConstants.AxisHeight.Value == 250
    for sign in "()[]√|":
        place = table.MathVariants.VertGlyphCoverage.glyphs.index(letters[ord(sign)])
        copies = table.MathVariants.VertGlyphConstruction[place].MathGlyphVariantRecord
        heights = [one.AdvanceMeasurement for one in copies]
        assert heights == sorted(heights) and heights[-1] > 3 * heights[0]
        for one in copies:
            glyph = font["glyf"][one.VariantGlyph]
            assert abs(glyph.yMax - glyph.yMin - one.AdvanceMeasurement) <= 1


def test_the_coverage_is_in_the_order_of_glyphs():
    font = TTFont(io.BytesIO(math_font("x")))
    places = [font.getGlyphID(name) for name in font["MATH"].table.MathVariants.VertGlyphCoverage.glyphs]
    assert places == sorted(places)
