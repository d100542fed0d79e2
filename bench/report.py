"""What the results say: ratios with what is wanted of them, as text and as a picture, and where they were measured."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from statistics import median

from bench.targets import MODEL, RAW, RUNTIME, STARLETTE, shared_name
from bench.trials import Result


@dataclass(frozen=True)
class Row:
    """One line of the table; `higher` where more is better. `value` is None where it was not measured."""

    what: str
    value: float | None
    unit: str
    must: float
    aim: float
    higher: bool = False
    note: str = ""

    @property
    def verdict(self) -> str:
        if self.value is None:
            return "not measurable here" if self.note else "not measured"
        met = [self.value >= want if self.higher else self.value <= want for want in (self.must, self.aim)]
        return "aim reached" if met[1] else "reached" if met[0] else "missed"


class Results:
    """Medians over the rounds; of memory the most, since a later round finds what an earlier one has freed."""

    def __init__(self, results: Sequence[Result]) -> None:
        self.results = results

    def value(self, target: str, workload: str, name: str) -> float | None:
        found = [
            one.values[name]
            for one in self.results
            if (one.target, one.workload) == (target, workload) and name in one.values
        ]
        if not found:
            return None
        return max(found) if name.startswith("KiB") else median(found)

    def ratio(self, workload: str, name: str, over: str, ours: str = RUNTIME) -> float | None:
        above, below = self.value(ours, workload, name), self.value(over, workload, name)
        return above / below if above is not None and below else None

    def added(self, workload: str, name: str) -> float | None:
        ours, model = self.value(RUNTIME, workload, name), self.value(MODEL, workload, name)
        return None if ours is None or model is None else ours - model

    def within(self, workload: str, above: str, below: str) -> float | None:
        """One of our own values against another."""
        first, second = self.value(RUNTIME, workload, above), self.value(RUNTIME, workload, below)
        return first / second if first is not None and second else None


def rows(results: Results) -> list[Row]:
    """The table of what is wanted."""
    flood = results.ratio("flood", "tokens a CPU second", RAW)
    page = results.within("stored", "history page, long", "history page, short")
    resume = results.within("stored", "resume at the end, long", "resume at the end, short")
    two = results.ratio("flood", "tokens/s", shared_name(1), shared_name(2))
    turn = "CPU ms a turn"
    first = "first token p50 ms"
    return [
        Row("Paced streams on a core, of T0b's", results.ratio("most paced", "streams", STARLETTE), "x", 2, 4, True),
        Row("CPU per paced token, of T0agent's", results.ratio("paced", "CPU us a token", RAW), "x", 2.5, 1.8),
        Row("Flood tokens per CPU second, of T0agent's", flood, "x", 0.6, 0.8, True),
        Row("CPU per turn, of T0b's", results.ratio("one token", turn, STARLETTE), "x", 0.6, 0.2),
        Row("Added to the first token, one stream", results.added("one token alone", first), "ms", 5, 3),
        Row("Added to the first token, 100 streams", results.added("paced", first), "ms", 10, 3),
        Row("Token delay p99, paced streams", results.value(RUNTIME, "paced", "delay p99 ms"), "ms", 25, 10),
        Row("Turn at 1,000 messages, of one at 10", results.within("history", "1000", "10"), "x", 2.5, 1.2),
        Row("Memory of an open stream", results.value(RUNTIME, "paced", "KiB a stream"), "KiB", 100, 40),
        Row("Memory of an idle WebSocket", results.value(RUNTIME, "idle WebSockets", "KiB each"), "KiB", 30, 20),
        Row("Two processes, of one", two, "x", 1.7, 1.9, True, note="six cores, PostgreSQL and Redis"),
        Row("History page: 10,000 messages, of 100", page, "x", 2, 1.2),
        Row("Resume at the end: 10,000 messages, of 100", resume, "x", 2, 1.2),
    ]  # fmt: skip


def machine() -> str:
    cpu = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), ""
    )
    memory = next((int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), 0)
    return (
        f"{os.cpu_count()} cores ({cpu or platform.machine()}), {memory / 2**20:.0f} GiB, {platform.system()} "
        f"{platform.release()}, CPython {platform.python_version()}, load {os.getloadavg()[0]:.1f} at the end"
    )


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def table(found: Sequence[Row]) -> str:
    lines = ["| what | measured | must | aim | |", "| --- | --- | --- | --- | --- |"]
    for row in found:
        sign, value = ">=" if row.higher else "<=", "-" if row.value is None else f"{row.value:.2f} {row.unit}"
        lines.append(f"| {row.what} | {value} | {sign} {row.must:g} | {sign} {row.aim:g} | {row.verdict} |")
    return "\n".join(lines)


def details(results: Results) -> str:
    """Every median that there is."""
    parts = []
    workloads = dict.fromkeys(one.workload for one in results.results)
    for workload in workloads:
        some = [one for one in results.results if one.workload == workload]
        names = list(dict.fromkeys(name for one in some for name in one.values))
        parts.append(f"\n### {workload}\n\n| target | {' | '.join(names)} |\n| --- |{' --- |' * len(names)}")
        for target in dict.fromkeys(one.target for one in some):
            values = [results.value(target, workload, name) for name in names]
            parts.append(f"| {target} | {' | '.join('-' if v is None else f'{v:,.2f}' for v in values)} |")
    return "\n".join(parts)


def page(results: Results, options: str) -> str:
    errors = [f"* {one.target}, {one.workload}: {text}" for one in results.results for text in one.errors[:1]]
    return "\n".join(
        [
            "# Results of the benchmark",
            f"\n`python -m bench {options}` on {datetime.now(UTC):%Y-%m-%d}: {machine()}.\n",
            "Medians. On a busy machine ratios of CPU time hold; milliseconds and the number of streams do not.\n",
            "![What was measured, of what must be](results.svg)\n",
            table(rows(results)),
            details(results),
            "\n".join(["\n### What went wrong\n", *errors]) if errors else "",
        ]
    ).rstrip() + "\n"  # fmt: skip


# --- the picture -------------------------------------------------------------------------------------------------

WIDTH, LABEL, BAR, LINE = 860, 330, 400, 26
STYLE = """
text { font: 13px system-ui, sans-serif; fill: #1f2328 } .bar { fill: #2f6f4f } .missed { fill: #b3412e }
.want { stroke: #57606a; stroke-width: 2 } .aim { stroke-dasharray: 3 3 } .dim { fill: #57606a }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .bar { fill: #4fae7c } .missed { fill: #e5694f }
  .want { stroke: #9198a1 } .dim { fill: #9198a1 }
}
"""


def picture(found: Sequence[Row]) -> str:
    """A bar a line: how well we do, measured in what must be (the solid mark); the dashed mark is the aim."""
    shown = [row for row in found if row.value]
    height = LINE * (len(shown) + 2)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
        f"<title>Measured, of what must be</title><style>{STYLE}</style>",
    ]
    for index, row in enumerate(shown):
        y = LINE * index + 8
        parts += [
            f'<text x="{LABEL - 8}" y="{y + 14}" text-anchor="end">{escape(row.what)}</text>',
            f'<rect class="{"missed" if row.verdict == "missed" else "bar"}" x="{LABEL}" y="{y + 2}" '
            f'width="{BAR * _share(row, row.value or 0):.0f}" height="{LINE - 10}"/>',
            _mark(row, row.must, y, "want"),
            _mark(row, row.aim, y, "want aim"),
            f'<text class="dim" x="{LABEL + BAR + 10}" y="{y + 14}">{row.value:.2f} {row.unit}</text>',
        ]
    legend = "right is better; solid: what must be, dashed: the aim"
    parts.append(f'<text class="dim" x="{LABEL}" y="{height - 14}">{legend}</text></svg>')
    return "\n".join(parts) + "\n"


def _share(row: Row, value: float) -> float:
    """The place of a value on its line: what must be stands at a third."""
    better = value / row.must if row.higher else row.must / max(value, 1e-9)
    return min(better / 3, 1.0)


def _mark(row: Row, value: float, y: int, style: str) -> str:
    x = LABEL + BAR * _share(row, value)
    return f'<line class="{style}" x1="{x:.0f}" x2="{x:.0f}" y1="{y}" y2="{y + LINE - 6}"/>'
