"""``--fail-if``: thresholds that set the exit code."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.compare.judge import Judge
from harness.compare.pairs import Meeting
from harness.compare.values import Metric, Ruled
from harness.errors import PlanError

_METRICS: Mapping[str, Metric] = {"slower": "latency", "accuracy": "accuracy", "memory": "memory", "size": "size"}
_RULE = re.compile(r"\s*([a-z]+)\s*([<>])\s*([-+]?\d+(?:\.\d+)?)\s*(%?)\s*")


@dataclass(frozen=True)
class Rule:
    """Fail where a change lies beyond ``threshold``: above it if ``above``, else below it."""

    text: str
    metric: Metric
    above: bool
    threshold: float


def parse_rule(text: str) -> Rule:
    """Read ``slower>5%``, ``accuracy<-0.5``, ``memory>10%`` or ``size>0%``.

    Raises:
        PlanError: It is none of these.
    """
    match = _RULE.fullmatch(text)
    hint = "such as 'slower>5%', 'accuracy<-0.5' (points of the metric), 'memory>10%', 'size>0%'"
    if match is None or match[1] not in _METRICS:
        raise PlanError(f"--fail-if takes a rule; got {text!r}", hint=hint)
    metric, share = _METRICS[match[1]], match[4] == "%"
    if share == (metric == "accuracy"):
        raise PlanError(f"--fail-if {text!r}: {match[1]} is given {'in points' if share else 'in %'}", hint=hint)
    if (match[2] == ">") == (metric == "accuracy"):
        worse = "'accuracy<' and a negative number" if metric == "accuracy" else f"'{match[1]}>'"
        raise PlanError(f"--fail-if {text!r} would fail on what is better", hint=f"worse is {worse}")
    return Rule(text.strip(), metric, match[2] == ">", float(match[3]) / (100 if share else 1))


def apply(rule: Rule, judged: Sequence[tuple[Meeting, Mapping[str, Judge]]]) -> list[Ruled]:
    """Judge every cell by one rule, with the intervals that hold for all cells at once.

    A cell fails where its whole interval lies beyond the threshold, and passes where none of it does; else it is
    unresolved. A cell that lost its figures fails.
    """
    return [_ruled(rule, meeting, judges.get(rule.metric)) for meeting, judges in judged]


def _ruled(rule: Rule, meeting: Meeting, judge: Judge | None) -> Ruled:
    if meeting.lost:
        return Ruled(rule.text, meeting.name, "fail", f"it has no figures any more: {meeting.refused}")
    if meeting.refused:
        return Ruled(rule.text, meeting.name, "not judged", meeting.refused)
    if judge is None:
        return Ruled(rule.text, meeting.name, "not judged", f"there is no {rule.metric} on both sides")
    if judge.change.word == "yardstick":
        return Ruled(rule.text, meeting.name, "not judged", judge.change.reason)
    return _decided(rule, meeting.name, judge)


def _decided(rule: Rule, name: str, judge: Judge) -> Ruled:
    said = f"{rule.metric} {_amount(judge)}"
    low, high = judge.change.change.low, judge.change.change.high
    if judge.doubt or low is None or high is None:
        return Ruled(rule.text, name, "unresolved", f"{said}: {judge.doubt or judge.change.reason}")
    ends = (low, high) if rule.above else (-high, -low)
    threshold = rule.threshold if rule.above else -rule.threshold
    if ends[0] > threshold:
        return Ruled(rule.text, name, "fail", said)
    if ends[1] <= threshold:
        return Ruled(rule.text, name, "pass", said)
    return Ruled(rule.text, name, "unresolved", f"{said}: the interval reaches over the threshold")


def _amount(judge: Judge) -> str:
    change = judge.change.change
    share = judge.change.unit == "share"
    scale, unit = (100, " %") if share else (1, f" {judge.change.unit}")
    if change.low is None or change.high is None:
        return f"{change.point * scale:+.2f}{unit}, no interval"
    return f"{change.point * scale:+.2f}{unit} ({change.low * scale:+.2f} to {change.high * scale:+.2f})"
