"""A procurement as Markdown, as CSV, and its tornado as text and SVG."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from xml.sax.saxutils import escape as xml_escape

from harness.leaderboard import escape
from harness.leaderboard.digits import UNKNOWN, plain, ranged
from harness.procure.cost import Bar
from harness.procure.values import Offer, Procurement
from harness.types import Interval

_MARK = {"yes": "", "by estimate": "†", "no": "✗", "not known": "?"}
WIDTH = 24  # characters of a bar


def head(found: Procurement) -> tuple[str, ...]:
    """Return the names of the table's columns."""
    money = found.currency or "price"
    return (
        "unit", "machine", "best configuration", f"accuracy {found.accuracy}".strip(), f"{found.slo or 'limit'}",
        "items/s", "watts", "items/J", f"{money} per million", f"millions per {money}",
    )  # fmt: skip


def rows(found: Procurement) -> list[tuple[str, ...]]:
    """Return one row of text for each unit, the cheapest first."""
    return [_row(offer) for offer in found.offers]


def _row(offer: Offer) -> tuple[str, ...]:
    unit = f"{offer.unit} (stand-in: {offer.stand_in})" if offer.stand_in else offer.unit
    best = offer.best
    if best is None:
        return (unit, offer.sku, f"none qualifies of {offer.measured}: {offer.reason}", *[UNKNOWN] * 7)
    held = [
        UNKNOWN if item is None else f"{_interval(item.value, scale)}{unit_}{_MARK[item.kept]}"
        for item, scale, unit_ in ((best.accuracy, 1.0, ""), (best.slo, 1e-6, " ms"))
    ]
    noise = "" if best.noise == "ok" else "!"
    return (
        unit, offer.sku, best.name, *held, f"{_interval(best.throughput)}{noise}", _watts(offer),
        _interval(offer.per_watt), _cost(offer), _interval(offer.per_currency, 1e-6),
    )  # fmt: skip


def _interval(value: Interval | None, scale: float = 1.0) -> str:
    if value is None:
        return UNKNOWN
    low, high = (None if end is None else end * scale for end in (value.low, value.high))
    if low == high:
        return plain(value.point * scale)
    point, span = ranged(value.point * scale, low, high)
    return f"{point} ({span})" if span else point


def _watts(offer: Offer) -> str:
    return _interval(offer.watts) + (f" {offer.power.level}" if offer.power else "")


def _cost(offer: Offer) -> str:
    if offer.cost is not None:
        return _interval(offer.cost)
    return UNKNOWN if offer.machine is None else f"{_interval(offer.machine)} without energy"


def legend(found: Procurement) -> list[str]:
    """Return what the marks and columns mean, and every assumption."""
    a = found.assumptions
    kwh = f"{found.kwh:g} {found.currency}" if found.kwh is not None else "not given"
    assumed = [f"{a.years:g} years", f"utilisation {a.utilisation:.0%}", f"residual {a.residual:.0%}"]
    assumed += [f"opex {a.opex:.0%} a year", f"PUE {a.pue:g}", f"kWh {kwh}"]
    lines = [
        f"assumptions, to be set in the prices file: {', '.join(assumed)}",
        "latency and throughput are of one request after another: the tail under a load of requests is another figure",
        "† by estimate: the interval does not decide it   ! the host was disturbed",
    ]
    if found.accuracy.endswith("%"):
        lines.append("accuracy is a share of the anchor's: 1 is the uncompressed model on the same runtime")
    return lines


def evens(found: Procurement) -> list[str]:
    """Return the break-even volumes, a sentence each."""
    lines: list[str] = []
    for item in found.break_evens:
        if item.inferences is None:
            lines.append(f"{item.above} is cheaper than {item.below} at every volume")
        else:
            reach = "" if item.reachable else ", more than one unit makes in its years"
            lines.append(f"{item.above} is cheaper than {item.below} above {item.inferences:.3g} inferences{reach}")
    return lines


def bars(offer: Offer) -> list[tuple[str, str, str, str]]:
    """Return the tornado of a unit as rows: assumption, its range, the cost's, and a bar."""
    top = max((max(bar.cost_low, bar.cost_high) for bar in offer.bars), default=0.0)
    return [
        (
            bar.factor,
            f"{plain(bar.low)} to {plain(bar.high)}",
            f"{plain(min(bar.cost_low, bar.cost_high))} to {plain(max(bar.cost_low, bar.cost_high))}",
            _bar(bar, top),
        )
        for bar in offer.bars
    ]


def _bar(bar: Bar, top: float) -> str:
    start, end = (round(cost / top * WIDTH) if top else 0 for cost in sorted((bar.cost_low, bar.cost_high)))
    return "·" * start + "█" * max(1, end - start)


def markdown(found: Procurement) -> str:
    """Return the whole answer as Markdown."""
    limits = " and ".join(text for text in (found.slo, f"accuracy {found.accuracy}" if found.accuracy else "") if text)
    lines = [f"### {escape.markdown(found.workload)}: {escape.markdown(limits or 'no limit')}", ""]
    lines += _grid(head(found), rows(found))
    lines += [f"{escape.markdown(text)}  " for text in legend(found)] + [""]
    if evens(found):
        lines += ["#### Break-even", "", *(f"- {escape.markdown(text)}" for text in evens(found)), ""]
    for offer in found.offers:
        if offer.bars:
            part = "" if offer.cost else ", without energy"
            lines += [f"#### What the cost of {escape.markdown(offer.unit)} hangs on{part}", ""]
            lines += _grid(("assumption", "from", f"{found.currency} per million", ""), bars(offer))
    lines += [
        "#### What is not decided",
        "",
        *(f"- {escape.markdown(text)}" for text in found.undecided or ("nothing",)),
    ]
    lines += [
        "",
        "#### Sources",
        "",
        *(f"- {escape.markdown(text)}" for text in found.sources or ("no price is given",)),
    ]
    lines += [f"\n> left out: {escape.markdown(text)}" for text in found.problems]
    return "\n".join(lines).rstrip() + "\n"


def _grid(names: Sequence[str], body: Iterable[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(escape.markdown(name) for name in names) + " |", "|" + "---|" * len(names)]
    lines += ["| " + " | ".join(escape.markdown(text) for text in row) + " |" for row in body]
    return [*lines, ""]


_CSV = (
    "unit", "machine", "stand_in", "configuration", "cell_id", "run", "latency_ns", "latency_low_ns", "latency_high_ns",
    "latency_worst_ns", "latency_kept", "accuracy", "accuracy_low", "accuracy_high", "accuracy_kept",
    "throughput_per_s", "throughput_low_per_s", "throughput_high_per_s", "noise", "watts", "watts_low", "watts_high",
    "cost_per_million", "cost_low_per_million", "cost_high_per_million", "machine_cost_per_million", "currency",
    "reason", "watts_level", "items_per_j", "items_low_per_j", "items_high_per_j",
)  # fmt: skip


def to_csv(found: Procurement) -> str:
    """Return one line per unit with plain numbers in base units; an empty field is not known."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(_CSV)
    for offer in found.offers:
        writer.writerow([escape.csv(item) if isinstance(item, str) else item for item in _plain(offer, found.currency)])
    return stream.getvalue()


def _plain(offer: Offer, currency: str) -> list[object]:
    best = offer.best
    slo, floor = (best.slo, best.accuracy) if best else (None, None)
    return [
        offer.unit, offer.sku, offer.stand_in, best.name if best else "", best.cell_id if best else "",
        best.run if best else "", *_ends(slo.value if slo else None), slo.worst if slo else None,
        slo.kept if slo else "", *_ends(floor.value if floor else None), floor.kept if floor else "",
        *_ends(best.throughput if best else None), best.noise if best else "", *_ends(offer.watts),
        *_ends(offer.cost), offer.machine.point if offer.machine else None, currency, offer.reason,
        offer.power.level if offer.power else "", *_ends(offer.per_watt),
    ]  # fmt: skip


def _ends(value: Interval | None) -> tuple[float | None, float | None, float | None]:
    return (None, None, None) if value is None else (value.point, value.low, value.high)


def svg(found: Procurement) -> str:
    """Return the tornado of every priced unit as one SVG; it needs no script and no network."""
    parts: list[str] = []
    y = 30
    shown = [offer for offer in found.offers if offer.bars]
    top = max((max(bar.cost_low, bar.cost_high) for offer in shown for bar in offer.bars), default=1.0) or 1.0
    for offer in shown:
        point = (offer.cost or offer.machine or Interval(0.0, None, None)).point
        part = "" if offer.cost else ", without energy"
        title = f"{offer.unit}: {plain(point)} {found.currency} per million{part}"
        parts.append(f'<text x="10" y="{y}" font-weight="bold">{_xml(title)}</text>')
        for bar in offer.bars:
            y += 24
            start, end = (150 + 430 * cost / top for cost in sorted((bar.cost_low, bar.cost_high)))
            label = f"{bar.factor} {plain(bar.low)} to {plain(bar.high)}"
            parts.append(f'<text x="10" y="{y + 12}" font-size="11">{_xml(label)}</text>')
            parts.append(
                f'<rect x="{start:.1f}" y="{y}" width="{max(1.0, end - start):.1f}" height="16" fill="#4477aa"/>'
            )
        middle = 150 + 430 * point / top
        first = y - 24 * (len(offer.bars) - 1)
        parts.append(f'<line x1="{middle:.1f}" x2="{middle:.1f}" y1="{first - 4}" y2="{y + 20}" stroke="#cc3311"/>')
        y += 50
    title = f"<title>{_xml(f'cost per million inferences of {found.workload}, each assumption by itself')}</title>"
    size = f'width="640" height="{y}" viewBox="0 0 640 {y}"'
    style = 'font-family="sans-serif" font-size="13" role="img"'
    body = f'{title}<rect width="640" height="{y}" fill="white"/>{"".join(parts)}'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>{body}</svg>\n'


def _xml(text: str) -> str:
    return xml_escape(escape.visible(text))
