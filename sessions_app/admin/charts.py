"""The home page's charts: numbers in, coordinates for inline SVG out. No colour, no text of a model in an attribute.

Every chart is drawn in a field of WIDTH x HEIGHT that the page stretches; its words stand around it as HTML.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.utils.translation import gettext as _

from sessions_app.admin import shown

WIDTH, HEIGHT = 600, 120
SERIES = 5  # told apart; what is beyond them is one more


@dataclass(frozen=True, slots=True)
class Block:
    css: str
    x: float
    y: float
    width: float
    height: float
    title: str


@dataclass(frozen=True, slots=True)
class Chart:
    """`legend`: (css class, words, total as text). `points`: (css class, the points of a line)."""

    title: str
    top: str
    first: str
    last: str
    blocks: list[Block] = field(default_factory=list)
    points: list[tuple[str, str]] = field(default_factory=list)
    legend: list[tuple[str, str, str]] = field(default_factory=list)
    is_empty: bool = False


def number(value: float) -> str:
    """A number of at most four digits and its unit."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if value >= limit:
            return f"{value / (1e3 if unit == 'k' else limit):.3g}{unit}"
    return f"{value:,.0f}".replace(",", " ")


def stacked(
    title: str,
    slots: Sequence[str],
    values: Mapping[str, Sequence[int]],
    *,
    css: Mapping[str, str] | None = None,
    words: Callable[[str], object] = str,
) -> Chart:
    """Columns of what adds up. `values`: series -> one number a slot; without `css` the largest get the colours."""
    totals = Counter({name: sum(numbers) for name, numbers in values.items()})
    named = [name for name, total in totals.most_common() if total]
    if css is None:
        values, named = _with_rest(values, named)
        css = {name: f"series-{place}" for place, name in enumerate(named)}
    heights = [sum(values[name][at] for name in named) for at in range(len(slots))]
    most = max(heights, default=0)
    step = WIDTH / max(len(slots), 1)
    blocks = []
    for at, slot in enumerate(slots):
        below = 0.0
        for name in named:
            if n := values[name][at]:
                height = n / most * HEIGHT
                told = f"{slot} · {shown.visible(words(name))}: {number(n)}"
                blocks.append(
                    Block(
                        css[name],
                        _r(at * step + step * 0.1),
                        _r(HEIGHT - below - height),
                        _r(step * 0.8),
                        _r(height),
                        told,
                    )
                )
                below += height
    legend = [(css[name], shown.visible(words(name)), number(sum(values[name]))) for name in named]
    return Chart(title, number(most), *_ends(slots), blocks=blocks, legend=legend, is_empty=not most)


def _with_rest(values: Mapping[str, Sequence[int]], named: list[str]) -> tuple[dict[str, Sequence[int]], list[str]]:
    kept, rest = named[:SERIES], named[SERIES:]
    found = {name: values[name] for name in kept}
    if rest:
        other = _("others")
        found[other] = [sum(column) for column in zip(*(values[name] for name in rest), strict=True)]
        kept.append(other)
    return found, kept


def lines(
    title: str, slots: Sequence[str], values: Mapping[str, Sequence[float | None]], css: Mapping[str, str]
) -> Chart:
    """One line a series, in seconds; a slot without a value is left out."""
    most = max((value for numbers in values.values() for value in numbers if value is not None), default=0.0)
    step = WIDTH / max(len(slots), 1)
    points, legend, blocks = [], [], []
    for name, numbers in values.items():
        dots = [(at, value) for at, value in enumerate(numbers) if value is not None]
        places = [(_r(at * step + step / 2), _r(HEIGHT - value / most * HEIGHT * 0.96)) for at, value in dots if most]
        points.append((css[name], " ".join(f"{x},{y}" for x, y in places)))
        blocks += [
            Block(css[name], _r(x - 2.5), _r(y - 2), 5, 4, f"{slots[at]} · {name}: {shown.duration(value)}")
            for (at, value), (x, y) in zip(dots, places, strict=True)
        ]
        legend.append((css[name], name, shown.duration(dots[-1][1]) if dots else "—"))
    return Chart(
        title, shown.duration(most) if most else "", *_ends(slots), blocks=blocks, points=points, legend=legend,
        is_empty=not most,
    )  # fmt: skip


def _ends(slots: Sequence[Any]) -> tuple[str, str]:
    return (slots[0], slots[-1]) if slots else ("", "")


def _r(value: float) -> float:
    return round(value, 1)
