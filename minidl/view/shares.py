"""Probabilities and shares in words: never rounded to none or to all."""

from __future__ import annotations


def probability(p: float) -> str:
    """In percent, as in 98.5%; ">99.9%" and "<0.1%" beyond that, since no net is wholly sure."""
    return ">99.9%" if p > 0.999 else "<0.1%" if p < 0.001 else f"{p:.1%}" if p == p else "NaN"


def fraction(p: float) -> str:
    """In three digits, as in 0.985; "> 0.999" where it would round to 1, and "< 0.001" where it would round to 0."""
    return "> 0.999" if p > 0.999 else "< 0.001" if p < 0.001 else f"{p:.3f}" if p == p else "NaN"


def share(of_all: float) -> str:
    """Of things that are counted, in percent; here all are 100.0%, and none 0.0%."""
    return f"{of_all:.1%}" if of_all in (0, 1) else probability(of_all)
