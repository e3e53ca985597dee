"""Classifier-free guidance (Ho and Salimans, arXiv 2207.12598)."""

from __future__ import annotations

from jaxtyping import Array


def guided(conditional: Array, unconditional: Array, scale: float | Array) -> Array:
    """unconditional + scale (conditional - unconditional); a scale of 1 is no guidance."""
    return unconditional + scale * (conditional - unconditional)
