"""Which technique was measured on which target, and what it came to: a page made from specs and runs."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from harness.grammar import parse_pipeline
from harness.leaderboard.digits import fixed, plain, unknown
from harness.leaderboard.escape import markdown

if TYPE_CHECKING:
    import pandas as pd

    from harness.specs import MethodSpec
    from harness.types import Step

Row = Mapping[str, Any]
TITLES: Mapping[str, str] = {  # in the order of the table, which numbers them
    "M01": "weight clipping",
    "M02": "magnitude pruning by threshold",
    "M03": "magnitude pruning by ratio",
    "M04": "gradual pruning",
    "M05": "channel pruning",
    "M06": "unit pruning",
    "M07": "filter pruning",
    "M08": "gradient importance",
    "M09": "fine-tuning after pruning",
    "M10": "N:M sparsity",
    "Q01": "integer quantization",
    "Q02": "fixed-point quantization",
    "Q03": "dynamic-range quantization",
    "Q04": "codebook quantization",
    "Q05": "bit widths",
    "Q06": "calibration",
    "Q07": "bias correction",
    "Q08": "quantization-aware training",
    "Q09": "mixed precision",
    "B01": "binarization",
    "B02": "fixed-point binary (power-of-two)",
    "B03": "ternary weights",
    "D01": "knowledge distillation",
    "D02": "progressive distillation",
    "D03": "multi-teacher distillation",
    "L01": "decomposition",
    "L02": "restructuring",
    "H01": "hyper-parameter search",
    "C01": "composition",
    "E01": "accuracy, size and latency measured together",
}
NUMBERS: Mapping[str, str] = {name: number for number, name in TITLES.items()}
COMMANDS: Mapping[str, str] = {  # techniques that a command carries, not a method
    "hyper-parameter search": "`harness tune`, on every target",
    "composition": "`+` in a pipeline and `harness bench --stages`, on every target",
    "accuracy, size and latency measured together": "every row of `harness bench`, on every target",
}


def technique_table(board: pd.DataFrame, methods: Mapping[str, MethodSpec[Any]]) -> str:
    """Return a Markdown table: a line for each technique and method, a column for each target of the board.

    Args:
        board: From ``harness.leaderboard.table``.
        methods: Specs by name; their ``techniques`` say what they carry.
    """
    rows = [{str(key): None if unknown(value) else value for key, value in item.items()} for item in _records(board)]
    targets = sorted({str(item["target"]) for item in rows if not item["overhead"]})
    lines = [f"| technique | method | {' | '.join(targets)} |", "|---|---|" + "---|" * len(targets)]
    carried = [(*_named(text), method) for method, spec in methods.items() for text in spec.techniques]
    for one in dict.fromkeys([*NUMBERS, *sorted({name for name, _where, _method in carried})]):
        title = f"{NUMBERS.get(one, '')} {one}".strip()
        carriers = [(method, where) for name, where, method in carried if name == one]
        if one in COMMANDS:
            lines.append(f"| {title} | {COMMANDS[one]} |" + " |" * len(targets))
        for name, where in carriers:
            cells = [markdown(_cell(name, where, target, rows)) for target in targets]
            lines.append(f"| {title} | `{':'.join(part for part in (name, where) if part)}` | {' | '.join(cells)} |")
        if not carriers and one not in COMMANDS:
            lines.append(f"| {title} | no installed method |" + " |" * len(targets))
    return "\n".join(lines) + "\n"


def _named(text: str) -> tuple[str, str]:
    """Return a technique's name and the parameter that makes it; a plugin may also give its number in the table."""
    made = re.fullmatch(r"(.+):([a-z_]\w*(?:=\S*)?)", text)  # no parameter follows the colon of N:M sparsity
    name, where = made.groups() if made else (text, "")
    return TITLES.get(name, name), where


def _records(board: pd.DataFrame) -> list[dict[Any, Any]]:
    found: list[dict[Any, Any]] = board.to_dict("records")
    return found


def _carries(step: Step, method: str, where: str) -> bool:
    """Tell whether a step is the method, with the parameter (or the parameter's value) that makes the technique."""
    param, sign, value = where.partition("=")
    if step.name != method or not param:
        return step.name == method
    given = str(step.params.get(param, "none"))
    return given == value if sign else given != "none"


def _cell(method: str, where: str, target: str, rows: Sequence[Row]) -> str:
    """Return what a method came to on a target: alone and as it is by default where that was measured, else as said."""
    known = [(item, parse_pipeline(str(item["method"]))) for item in rows if item["target"] == target]
    mine = [(item, steps) for item, steps in known if any(_carries(step, method, where) for step in steps)]
    mine.sort(key=lambda pair: (pair[0]["status"] != "ok", len(pair[1]), sum(len(step.params) for step in pair[1])))
    if not mine:
        return "not in these runs"
    item, _steps = mine[0]
    if item["status"] != "ok":
        return f"{item['status']}: {item['reason']}"
    usual = Counter(str(row["workload"]) for row in rows).most_common(1)[0][0]
    how = [f"as {item['method']}"] if item["method"] != ":".join(part for part in (method, where) if part) else []
    how += [f"on {item['workload']}"] if item["workload"] != usual else []
    return _figures(item) + (f" ({' '.join(how)})" if how else "")


def _figures(item: Row) -> str:
    unit = "pp" if item["metric_unit"] == "%" else str(item["metric_unit"] or "")
    parts = ["measured"]
    if item["speedup"] is not None:
        parts.append(f"speed {plain(item['speedup'])} ({item['verdict']})")
    if item["drop"] is not None:
        parts.append(f"drop {fixed(item['drop'], 1)} {unit}".rstrip())
    if item["compression"] is not None:
        stored = item["stored_compression"]
        packed = stored if stored is not None and stored > 1.02 * item["compression"] else None
        parts.append(f"size 1/{plain(item['compression'])}" + (f", stored 1/{plain(packed)}" if packed else ""))
    return ", ".join(parts)
