"""What the rows say together: medians and spread as a table, JSON and a chart (SVG) in `results/`.

`python -m benchmarks.report` prints the last results as the table of `docs/performance.md`.
"""

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import pygal
from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results"
Run = Mapping[str, Any]


@attrs.frozen
class Measure:
    """How a row is read: the figure that counts, what it counts, and what it is compared with.

    `peers` are the figures of WuKongIM 1.2.6 and 2.2.5 on a machine with 2 cores and a load generator in Go beside
    them, 0 where there is none; `goal` is what is to be reached there. A ratio means something only where the peer is
    measured on the same machine in the same hour.
    """

    unit: str
    key: str = "per_second"
    peers: tuple[float, float] = (0, 0)
    goal: float = 0
    smaller_is_better: bool = False


MEASURES: dict[str, Measure] = {
    "person_to_person": Measure("acks/s", peers=(48_000, 31_000), goal=75_000),
    "window_1": Measure("acks/s", peers=(13_800, 7_100), goal=14_000),
    "open_loop_900": Measure("ms, p99 send to receive", "recv_p99_ms", (1.7, 3.7), 2, smaller_is_better=True),
    "open_loop_5000": Measure("ms, p99 send to ack", "ack_p99_ms", (2.7, 25.2), smaller_is_better=True),
    "group_1000": Measure("deliveries/s", peers=(100_000, 149_000), goal=400_000),
    "group_1000_window_1": Measure("messages/s to the last member", peers=(28, 35), goal=100),
    "group_10000": Measure("deliveries/s", peers=(24_000, 86_000), goal=300_000),
    "handshakes": Measure("logins/s", peers=(6_000, 6_400), goal=9_000),
    "idle_memory": Measure("KB per connection", "kb_per_connection", (6.6, 6.5), 3, smaller_is_better=True),
    "http_send": Measure("requests/s", peers=(0, 11_500), goal=11_500),
    "http_send_nosync": Measure("requests/s", peers=(21_000, 0), goal=21_000),
    "history": Measure("pages/s", peers=(4_300, 6_500), goal=12_000),
    "websocket": Measure("acks/s"),
    "idle_100k": Measure("ms, p99 send to receive", "recv_p99_ms", goal=100, smaller_is_better=True),
    "dead_webhook": Measure("of the rate without", "ratio", goal=0.95),
}


@attrs.frozen
class Figure:
    """A row's runs: the median and how far they are apart."""

    row: str
    measure: Measure
    median: float
    least: float
    most: float
    runs: Sequence[Run]

    @property
    def to_goal(self) -> float:
        """Return how much of the goal is reached; 1 and more is all of it, 0 that there is none."""
        return self._ratio(self.measure.goal)

    @property
    def to_peer(self) -> float:
        """Return the ratio to the better of the peers, 0 if there is none."""
        peers = [peer for peer in self.measure.peers if peer]
        if not peers:
            return 0
        return self._ratio(min(peers) if self.measure.smaller_is_better else max(peers))

    def _ratio(self, other: float) -> float:
        if not other or not self.median:
            return 0
        return other / self.median if self.measure.smaller_is_better else self.median / other

    def median_of(self, key: str) -> float | None:
        """Return the median of another figure of the runs, None where they do not have it."""
        found = [run[key] for run in self.runs if isinstance(run.get(key), (int, float))]
        return statistics.median(found) if found else None


def figure(row: str, runs: Sequence[Run]) -> Figure:
    """Put the runs of a row together.

    Raises:
        LookupError: A run does not have the figure that counts in this row.
    """
    measure = MEASURES[row]
    values = [float(run[measure.key]) for run in runs]
    return Figure(row, measure, statistics.median(values), min(values), max(values), runs)


def table(figures: Sequence[Figure]) -> Table:
    """Return the table that is printed."""
    shown = Table(title="medians; spread from the least to the most")
    for name in ("row", "unit"):
        shown.add_column(name, no_wrap=True)
    for name in ("median", "spread", "of goal", "to peer", "CPU us", "p99 ms", "RSS MB"):
        shown.add_column(name, justify="right", no_wrap=True)
    for each in figures:
        shown.add_row(
            each.row,
            each.measure.unit,
            _number(each.median),
            f"{_number(each.least)}..{_number(each.most)}",
            _ratio(each.to_goal),
            _ratio(each.to_peer),
            _number(each.median_of("server_cpu_us_each")),
            _number(each.median_of("recv_p99_ms") or each.median_of("ack_p99_ms") or each.median_of("p99_ms")),
            _number(each.median_of("server_rss_mb")),
        )
    return shown


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:,.2f}"


def _ratio(value: float) -> str:
    return f"{value:.2f}" if value else "-"


def chart(figures: Sequence[Figure]) -> bytes:
    """Return an SVG: each row as a share of its goal, beside the better peer's share of it."""
    shown = [each for each in reversed(figures) if each.to_goal]  # the first row on top
    bars = pygal.HorizontalBar(
        title="triolet against its goals (1 is the goal; longer is better)",
        range=(0, max([1.5, *[each.to_goal for each in shown]])),
        height=60 + 55 * max(len(shown), 3),
        legend_at_bottom=True,
        js=[],
        no_data_text="nothing was measured",
    )
    bars.x_labels = [each.row for each in shown]
    bars.add("triolet", [round(each.to_goal, 3) for each in shown])
    bars.add("the better peer", [round(each.to_goal / each.to_peer, 3) if each.to_peer else None for each in shown])
    rendered: bytes = bars.render()
    return rendered


def write(figures: Sequence[Figure], facts: Mapping[str, Any], directory: Path = RESULTS) -> list[Path]:
    """Write `latest.json` and `latest.svg`; returns where they are."""
    directory.mkdir(exist_ok=True)
    rows = {
        each.row: {
            "unit": each.measure.unit,
            "median": round(each.median, 3),
            "least": round(each.least, 3),
            "most": round(each.most, 3),
            "of_goal": round(each.to_goal, 3),
            "to_peer": round(each.to_peer, 3),
            "runs": list(each.runs),
        }
        for each in figures
    }
    numbers, picture = directory / "latest.json", directory / "latest.svg"
    numbers.write_text(json.dumps({**facts, "rows": rows}, indent=1) + "\n")
    picture.write_bytes(chart(figures))
    return [numbers, picture]


def read(path: Path = RESULTS / "latest.json") -> list[Figure]:
    """Return the figures that were written last."""
    rows = json.loads(path.read_text())["rows"]
    return [figure(row, found["runs"]) for row, found in rows.items()]


def markdown(figures: Sequence[Figure]) -> str:
    """Return the table of `docs/performance.md`."""
    lines = [
        "| row | median | least to most | goal | peers 1.2.6 / 2.2.5 | server CPU µs | p99 ms | unit |",
        "|---|--:|--:|--:|--:|--:|--:|---|",
    ]
    for each in figures:
        measure = each.measure
        goal = f"{'≤' if measure.smaller_is_better else '≥'} {measure.goal:,g}" if measure.goal else "–"
        peers = " / ".join(f"{peer:,g}" if peer else "–" for peer in measure.peers) if any(measure.peers) else "–"
        cells = [
            f"`{each.row}`",
            f"**{_number(each.median)}**",
            f"{_number(each.least)} to {_number(each.most)}",
            goal,
            peers,
            _number(each.median_of("server_cpu_us_each")),
            _number(each.median_of("recv_p99_ms") or each.median_of("ack_p99_ms") or each.median_of("p99_ms")),
            measure.unit,
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def show(figures: Sequence[Figure]) -> None:
    """Print the table, as wide as it needs to be."""
    Console(width=160).print(table(figures))


if __name__ == "__main__":
    print(markdown(read()))
