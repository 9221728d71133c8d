"""Contrast of colours, as the Web Content Accessibility Guidelines 2.2 define it."""

from __future__ import annotations

from matplotlib.colors import to_rgb


def contrast(left: str, right: str) -> float:
    """Ratio of the relative luminances of two colours, from 1 to 21."""
    darker, lighter = sorted((_luminance(left), _luminance(right)))
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: str) -> float:
    parts = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in to_rgb(colour)]
    return sum(share * part for share, part in zip((0.2126, 0.7152, 0.0722), parts, strict=True))
