"""Figures as inline SVG: small, with real text, and safe to put beside others in one page."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

from analysis import plots
from analysis.gradient_weights import draw_weights
from analysis.report.formatting import finite

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["GLYPH_WIDTH", "curve_svg", "glyph", "inline", "interval_svg", "weight_svg"]

GLYPH_WIDTH = 112
_GLYPH_MARGIN = 6

_NUMBER = re.compile(r"-?\d+\.\d{2,}")


def curve_svg(curve: Mapping[str, Any], *, name: str) -> Markup:
    """The curves of one panel; `name` makes the ids of the figure unique in the page."""
    labels = ", ".join(str(series.get("label")) for series in curve["series"])
    figure = plots.curve_figure([curve], titles=False)
    return inline(figure, name=name, label=f"{curve['title']}: {curve['y_label']} by {curve['x_label']}; {labels}")


def weight_svg(panel: Mapping[str, Any], *, name: str) -> Markup:
    """One panel of an objective's gradient weight; `name` makes the ids of the figure unique in the page."""
    labels = ", ".join(str(series["label"]) for series in panel["series"])
    return inline(draw_weights([panel]), name=name, label=f"Gradient weight over the ratio, {panel['title']}; {labels}")


def interval_svg(claim: Mapping[str, Any], *, name: str) -> Markup:
    """The claim's interval and its falsifier's against the threshold."""
    falsifier = claim.get("falsifier")
    bars = [_bar("claim", claim), _bar("falsifier", falsifier if isinstance(falsifier, Mapping) else {})]
    direction = str(claim.get("direction"))
    figure = plots.interval_figure(
        bars,
        threshold=finite(claim.get("threshold")),
        direction=direction,
        unit=str(claim.get("unit") or ""),
        label="largest deviation" if direction == "identity" else "estimate",
    )
    return inline(
        figure, name=name, label="Estimate and interval of the claim and of its falsifier, with the threshold"
    )


def glyph(claim: Mapping[str, Any]) -> dict[str, Any] | None:
    """Positions, in pixels, of a small interval drawn beside the numbers; None where there is nothing to draw.

    The edge of the claimed side is always at the same place, so that a column of glyphs reads as "which side".
    """
    estimate, edge, direction = finite(claim.get("estimate")), finite(claim.get("threshold")), claim.get("direction")
    if estimate is None or edge is None:
        return None
    points = [estimate, *(end for end in _ends(claim) if end is not None)]
    half = GLYPH_WIDTH / 2
    if direction == "identity":
        # Decades below or above the tolerance; an exact 0 is as far below as can be drawn.
        if edge <= 0:
            return None
        offsets = [math.log10(max(abs(point), 1e-300) / edge) for point in points]
        offsets = [min(max(offset, -16.0), 16.0) for offset in offsets]
        reach, claimed, ticks = 16.0, (0.0, half), [half]
    elif direction == "equivalent":
        offsets = points
        reach = max(1.6 * abs(edge), *map(abs, points)) or 1.0
        inner = abs(edge) / reach * (half - _GLYPH_MARGIN)
        claimed, ticks = (half - inner, half + inner), [half - inner, half + inner]
    elif direction in {"greater", "less"}:
        offsets = [point - edge for point in points]
        reach, ticks = max(map(abs, offsets)) or 1.0, [half]
        claimed = (half, float(GLYPH_WIDTH)) if direction == "greater" else (0.0, half)
    else:
        return None
    places = [round(half + offset / reach * (half - _GLYPH_MARGIN), 1) for offset in offsets]
    return {
        "estimate": places[0],
        "low": min(places),
        "high": max(places),
        "claimed_from": round(claimed[0], 1),
        "claimed_width": round(claimed[1] - claimed[0], 1),
        "ticks": [round(tick, 1) for tick in ticks],
    }


def _ends(source: Mapping[str, Any]) -> tuple[float | None, float | None]:
    ends = source.get("interval")
    pair = ends if isinstance(ends, list) and len(ends) == 2 else [None, None]
    return finite(pair[0]), finite(pair[1])


def _bar(label: str, source: Mapping[str, Any]) -> plots.Bar:
    return plots.Bar(label, finite(source.get("estimate")), *_ends(source))


def inline(figure: Figure, *, name: str, label: str) -> Markup:
    """A figure as an SVG element: `name` makes its ids unique in the page, `label` is what a screen reader says."""
    source = plots.svg_source(figure)
    source = source[source.index("<svg") :]
    source = re.sub(r"<metadata>.*?</metadata>", "", source, flags=re.DOTALL)
    # A style sheet inside an inline figure would apply to the whole page.
    source = re.sub(r"<style.*?</style>", "", source, flags=re.DOTALL)
    source = re.sub(r"<!--.*?-->", "", source, flags=re.DOTALL)
    source = source.replace("xlink:href=", "href=")
    used = set(re.findall(r'(?:url\(#|href="#)([^")]+)', source))

    def keep(match: re.Match[str]) -> str:
        return f' id="{name}-{match[1]}"' if match[1] in used else ""

    source = re.sub(r' id="([^"]*)"', keep, source)
    source = re.sub(r'(url\(#|href="#)', rf"\g<1>{name}-", source)
    source = re.sub(r"font: ([^;\"]*?)px [^;\"]*", r"font-size: \1px", source)
    source = _outside_text(source)
    width, height = re.findall(r"[\d.]+", re.search(r'viewBox="([^"]*)"', source)[1])[2:4]  # type: ignore[index]
    source = re.sub(
        r"<svg[^>]*>",
        lambda _: f'<svg role="img" aria-label="{escape(label)}" viewBox="0 0 {width} {height}">',
        source,
        count=1,
    )
    return Markup(re.sub(r"\s*\n\s*", " ", source))


def _outside_text(source: str) -> str:
    """Shorten coordinates to a tenth of a point, but leave what a reader reads alone."""
    parts = re.split(r"(<text.*?</text>)", source, flags=re.DOTALL)
    return "".join(
        part if part.startswith("<text") else _NUMBER.sub(lambda m: f"{float(m[0]):.1f}".removesuffix(".0"), part)
        for part in parts
    )
