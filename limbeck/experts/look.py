"""The experts' curves for a notebook: a drawing in the colours of the page, made without matplotlib."""

import math
from collections.abc import Sequence

from limbeck.runtime.tables import Html

Curve = Sequence[float | None]

WIDTH, HEIGHT, LEFT, BELOW = 420, 170, 46, 34  # pixels
STEPS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.25, 0.5, 1.0)


def curves_svg(curves: Sequence[Curve]) -> Html:
    """A thin line for every curve of accuracies after epochs 1, 2, …, and a thick one for their mean; nothing without a value."""
    known = [value for curve in curves for value in curve if value is not None]
    if not known:
        return Html("")
    last = max(map(len, curves))
    low, high, step = _range(min(known), max(known))

    def place(epoch: float, value: float) -> str:
        x = LEFT + (WIDTH - LEFT - 10) * (epoch - 1) / max(last - 1, 1)
        return f"{x:.1f},{8 + (HEIGHT - 8 - BELOW) * (high - value) / (high - low):.1f}"

    def line(curve: Curve, look: str) -> str:
        points = [place(epoch, value) for epoch, value in enumerate(curve, 1) if value is not None]
        x, _, y = points[0].partition(",") if points else ("", "", "")
        if len(points) == 1:
            return f'<circle cx="{x}" cy="{y}" r="3" {look.replace("stroke=", "fill=")}/>'
        return f'<polyline fill="none" points="{" ".join(points)}" {look}/>' if points else ""

    grid = []
    for k in range(round((high - low) / step) + 1):
        value = low + k * step
        (left, y), (right, _) = (place(epoch, value).split(",") for epoch in (1, max(last, 2)))
        grid.append(f'<line x1="{left}" x2="{right}" y1="{y}" y2="{y}" stroke="currentColor" opacity="0.15"/>')
        grid.append(f'<text x="{LEFT - 6}" y="{float(y) + 4:.1f}" text-anchor="end">{100 * value:.3g} %</text>')
    at = {epoch: place(epoch, low).split(",")[0] for epoch in (1, last)}
    ends = [f'<text x="{x}" y="{HEIGHT - 18}" text-anchor="middle">{epoch}</text>' for epoch, x in at.items()]
    pale = f'stroke="currentColor" stroke-width="1" opacity="{max(0.1, 0.5 / len(curves) ** 0.5):.2f}"'
    thin = "".join(line(curve, pale) for curve in curves)
    said = f"validation accuracy of {len(curves)} experts over {last} epochs"
    mean = line(_mean(curves), 'stroke="#3366ee" stroke-width="2.5"')
    named = f'<text x="{(LEFT + WIDTH) / 2}" y="{HEIGHT - 4}" text-anchor="middle">epoch: validation accuracy, thick: mean</text>'
    return Html(
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" role="img" aria-label="{said}" font-size="11" fill="currentColor">'
        f"{''.join(grid)}{''.join(ends)}{named}{thin}{mean}</svg>"
    )


def _mean(curves: Sequence[Curve]) -> Curve:
    """Over the curves that have a value."""
    held = [[curve[k] for curve in curves if k < len(curve)] for k in range(max(map(len, curves)))]
    known = [[value for value in values if value is not None] for values in held]
    return [math.fsum(values) / len(values) if values else None for values in known]


def _range(low: float, high: float) -> tuple[float, float, float]:
    """Round ends around those, and a step with two to five lines between them."""
    step = next(one for one in STEPS if (high - low) / one <= 4)
    ends = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
    return ends[0], ends[1] if ends[1] > ends[0] else ends[0] + step, step
