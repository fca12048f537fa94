"""The sentence a bound prints, rounded down, and the float that never exceeds the fraction."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mechproof.proof.bound import Bound, Case, digits_lo, percent_lo, ratio_lo, short


@given(st.integers(1, 64**20), st.data())
def test_the_float_is_the_largest_below(total, data):
    from math import inf, nextafter
    correct = data.draw(st.integers(0, total))
    found = ratio_lo(correct, total)
    assert Fraction(found) <= Fraction(correct, total) < Fraction(nextafter(found, inf))


@given(st.integers(1, 64**20), st.data())
def test_printed_percentages_round_down(total, data):
    correct = data.draw(st.integers(0, total))
    assert Fraction(percent_lo(correct, total).rstrip("%")) / 100 <= Fraction(correct, total)


@pytest.mark.parametrize("correct, total, text", [
    (1, 3, "33.3%"), (16_763_235, 64**4, "99.9166%"), (3, 3, "100%"), (0, 3, "0%"), (955, 1000, "95.5%")])
def test_percentages(correct, total, text):
    assert percent_lo(correct, total) == text


@given(st.floats(-1e6, 1e6), st.integers(0, 8))
def test_printed_margins_round_down(x, places):
    assert Fraction(digits_lo(x, places)) <= Fraction(x) < Fraction(digits_lo(x, places)) + Fraction(2, 10**places)


def test_a_case_prints_no_more_than_it_knows():
    assert repr(Case(True, "group", lambda: 3.04599)) == "certified: group · margin >= 3.045 logits"
    assert repr(Case(False, "group", lambda: -0.0001)) == "not certified: group · margin >= -0.001 logits"


def test_the_sentence():
    bound = Bound("m", "cubic", 955, 1000, 35_100_000, 12_800)
    assert repr(bound) == ">= 95.5% of 1 000 inputs · 35.1 MFLOP · 12 800 unexplained dimensions"
    assert "but for a chance of 1.0e-18" in repr(Bound("m", "s", 1, 2, 3, failure_probability=1e-18))


def test_counts_for_people():
    assert [short(n) for n in (950, 12_800, 2_300_000, 3.2e9, 8e23)] == ["950", "12 800", "2.3 M", "3.2 G", "8.00e+23"]
