"""A comparison as Markdown, as text, and as JUnit XML."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from xml.etree import ElementTree

from harness.compare.run import counts
from harness.compare.values import Change, Comparison, Pair, Ruled
from harness.leaderboard import escape
from harness.leaderboard.digits import UNKNOWN, decimals, fixed

HEAD = ("cell", "latency", "verdict", "accuracy", "memory", "size", "basis")
_PLAIN = ("the interval", "within ", "every item")  # reasons that the figures show
_SIGN = {"fail": "✗", "pass": "✓", "unresolved": "?", "not judged": "–"}  # noqa: RUF001  as elsewhere


def summary(found: Comparison, *, unresolved_fails: bool) -> list[str]:
    """Return what it comes to, a sentence each."""
    words = [change.word for pair in found.pairs for change in pair.changes.values() if change.metric == "latency"]
    named = [f"{words.count(word)} {word}" for word in dict.fromkeys(words)]
    refused = sum(bool(pair.refused) for pair in found.pairs)
    lines = [
        f"{found.mode}, {found.pairing}: {found.compared} of {len(found.pairs)} cells compared"
        + (f" ({', '.join(named)})" if named else "")
        + (f", {refused} refused" if refused else "")
    ]
    if found.ruled:
        many = counts(found.ruled)
        how = "count as failures (--unresolved fail)" if unresolved_fails else "do not fail, and did not pass"
        lines.append(", ".join(f"{count} {word}" for word, count in many.items() if count) + " by --fail-if")
        if many["unresolved"]:
            lines.append(f"the {many['unresolved']} unresolved {how}: the evidence allows both answers")
    return lines


def rows(found: Comparison) -> list[tuple[str, ...]]:
    """Return one row of text per compared cell, in the order of ``HEAD``."""
    return [_row(pair) for pair in found.pairs if not pair.refused]


def _row(pair: Pair) -> tuple[str, ...]:
    latency = pair.changes.get("latency")
    return (
        pair.name,
        amount(latency),
        latency.word if latency else UNKNOWN,
        _worded(pair.changes.get("accuracy")),
        _worded(pair.changes.get("memory")),
        _worded(pair.changes.get("size")),
        latency.basis if latency else "",
    )


def remarks(found: Comparison) -> list[tuple[str, str]]:
    """Return what to know about the compared cells: (sentence, cells), those of one sentence together."""
    said: dict[str, list[str]] = {}
    for pair in found.pairs:
        reasons = [] if pair.refused else [*pair.notes, *(change.reason for change in pair.changes.values())]
        for text in dict.fromkeys(text for text in reasons if text and not text.startswith(_PLAIN)):
            said.setdefault(text, []).append(pair.name)
    compared = sum(not pair.refused for pair in found.pairs)
    return [(text, "all cells" if len(names) == compared > 1 else ", ".join(names)) for text, names in said.items()]


def refusals(found: Comparison) -> list[tuple[str, str]]:
    """Return why cells were not compared: (sentence, cells), those of one sentence together."""
    said: dict[str, list[str]] = {}
    for pair in found.pairs:
        if pair.refused:
            said.setdefault(pair.refused, []).append(pair.name)
    return [(text, ", ".join(names)) for text, names in said.items()]


def _worded(change: Change | None) -> str:
    if change is None:
        return UNKNOWN
    return f"{amount(change)} {change.word}" if change.word != "equivalent" or change.change.point else "same"


def amount(change: Change | None) -> str:
    """Write a change with its interval, such as ``+9.8 % (+8.1 to +11.4)``."""
    if change is None:
        return UNKNOWN
    interval, share = change.change, change.unit == "share"
    scale, unit = (100.0, " %") if share else (1.0, " pp" if change.unit == "points" else f" {change.unit}".rstrip())
    low, high = interval.low, interval.high
    if low is None or high is None:
        return f"{_signed(interval.point * scale, 1)}{unit} (no interval)"
    places = max(0, min(3, decimals((high - low) / 2 * scale))) if high > low else 1
    point = f"{_signed(interval.point * scale, places)}{unit}"
    return point if low == high else f"{point} ({_signed(low * scale, places)} to {_signed(high * scale, places)})"


def _signed(value: float, places: int) -> str:
    return f"{'+' if round(value, places) > 0 else ''}{fixed(value, places)}"


def markdown(found: Comparison, *, unresolved_fails: bool = False) -> str:
    """Return a comment for a pull request: the outcome first, then the cells, then what was refused."""
    failed = [item for item in found.ruled if item.outcome == "fail"]
    title = "" if not found.ruled else " — failed" if failed else " — no failure"
    lines = [f"### harness compare: {escape.markdown(found.a)} → {escape.markdown(found.b)}{title}", ""]
    lines += [f"{escape.markdown(text)}.  " for text in summary(found, unresolved_fails=unresolved_fails)]
    lines += ["", *_ruled(found.ruled)]
    if rows(found):
        lines += [*_grid(HEAD, rows(found)), _legend(found), ""]
    if remarks(found):
        lines += ["<details><summary>remarks</summary>", "", *_grid(("remark", "on"), remarks(found)), "</details>", ""]
    if refusals(found):
        lines += _grid(("because", "not compared"), refusals(found))
    lines += [f"> {escape.markdown(text)}" for text in found.notes]
    lines += [f"> left out: {escape.markdown(text)}" for text in found.problems]
    return "\n".join(lines).rstrip() + "\n"


def _legend(found: Comparison) -> str:
    return (
        f"Changes are B against A: + is slower, more, larger; of the accuracy + is better. Intervals hold at "
        f"{found.level:.0%} for all compared cells at once; *equivalent* lies within ±{found.margin:.0%}; "
        f"*unresolved* does not mean the same."
    )


def _ruled(ruled: Sequence[Ruled]) -> list[str]:
    shown = [item for item in ruled if item.outcome in {"fail", "unresolved"}]
    if not shown:
        return []
    return _grid(
        ("rule", "cell", "outcome", "because"), [(item.rule, item.name, item.outcome, item.reason) for item in shown]
    )


def _grid(names: Sequence[str], body: Iterable[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    lines += ["| " + " | ".join(escape.markdown(text) for text in row) + " |" for row in body]
    return [*lines, ""]


def junit(found: Comparison, *, unresolved_fails: bool = False) -> str:
    """Return JUnit XML: a test case for each rule and cell; unresolved and refused ones are skipped, with the reason.

    Without rules each compared cell is a case that fails where its verdict is slower, worse or lost.
    """
    cases = found.ruled or tuple(_implied(found))
    suite = ElementTree.Element("testsuite", {"name": "harness compare", "tests": str(len(cases))})
    many = {"failures": 0, "skipped": 0}
    for item in cases:
        case = ElementTree.SubElement(suite, "testcase", {"classname": _text(item.rule), "name": _text(item.name)})
        if item.outcome == "fail" or (item.outcome == "unresolved" and unresolved_fails):
            many["failures"] += 1
            ElementTree.SubElement(case, "failure", {"message": _text(item.reason), "type": item.outcome}).text = (
                item.reason and _text(item.reason)
            )
        elif item.outcome != "pass":
            many["skipped"] += 1
            ElementTree.SubElement(case, "skipped", {"message": _text(f"{item.outcome}: {item.reason}")})
        else:
            ElementTree.SubElement(case, "system-out").text = _text(item.reason)
    suite.attrib |= {name: str(count) for name, count in many.items()} | {"errors": "0"}
    root = ElementTree.Element("testsuites")
    root.append(suite)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _text(text: str) -> str:
    """XML has no form for control characters, so all that cannot be seen is written out."""
    return escape.visible(text)


def _implied(found: Comparison) -> Iterable[Ruled]:
    for pair in found.pairs:
        if pair.refused:
            yield Ruled("compared", pair.name, "fail" if pair.lost else "not judged", pair.refused)
        for change in pair.changes.values():
            bad = change.word in {"slower", "worse"}
            open_ = change.word in {"unresolved", "yardstick"}
            reason = f"{change.metric} {amount(change)} {change.word} {change.reason}".strip()
            yield Ruled(change.metric, pair.name, "fail" if bad else "unresolved" if open_ else "pass", reason)


def sign(outcome: str) -> str:
    """Return the mark of an outcome for a terminal."""
    return _SIGN[outcome]
