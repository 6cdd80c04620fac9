"""How ``harness inspect`` shows what it found."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from harness.cli.answer import echo

if TYPE_CHECKING:
    from harness.build.look import Look, Verdict
    from harness.inspection import Inspected
    from harness.types import Model, TensorSpec

WIDTH = 100  # columns of a line
LONGEST = 12  # types of operators that are shown; --json has all
_NAMED = re.compile(r"^(?:method|target) '[^']*' ")
SMALL = 0.005  # share of the weights' bytes below which places are summed up


def data(look: Look, wrong: str) -> dict[str, Any]:
    """Return all of it as plain data, inputs and outputs in order."""
    seen, model = look.seen, look.seen.model
    inputs = [{"name": name, **vars(model.inputs[name]), "shape_of_one_item": seen.shapes.get(name)}
              for name in seen.inputs]  # fmt: skip
    outputs = [{"name": name, "axis": model.axes.get(name, 0)} for name in model.outputs]
    return {
        "format": model.format,
        "items": seen.items,
        "data_problem": wrong or None,
        "problem": seen.problem or None,
        "inputs": [_plain(item) for item in inputs],
        "outputs": outputs,
        "file": seen.given,
        "prepared": seen.prepared,
        "targets": list(look.verdicts),
    }


def _plain(item: dict[str, Any]) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in item.items()}


def show(look: Look, name: str, wrong: str, *, given_data: bool) -> None:
    """Print it to stdout."""
    seen = look.seen
    echo(_headline(name, seen.model, seen.given))
    _table(("input", "dtype", "shape", "role", "items"), [_input(n, seen.model.inputs[n]) for n in seen.inputs])
    _table(("output", "items"), [(n, _output(seen.model, n)) for n in seen.model.outputs])
    if seen.items:
        made = "" if given_data else ", made up: no data are given"
        echo(f"\n{seen.items} test items{made}")
    for title, text in (("the data do not fit", wrong), ("before it can be built", seen.problem)):
        if text:
            echo()
            _paragraph(f"{title}: {_one_line(text)}")
    if seen.given is not None:
        _contents(seen.given)
        _preparation(seen.given, seen.prepared)
    _verdicts(look.verdicts)


def _headline(name: str, model: Model, given: Inspected | None) -> str:
    facts = [model.format]
    if given is not None:
        facts += [f"{key} {value}" for key, value in given.versions.items()]
        facts += [f"written by {given.producer}"] if given.producer else []
    return f"{name}: {', '.join(facts)}"


def _input(name: str, spec: TensorSpec) -> tuple[str, ...]:
    sizes = ["n" if axis == spec.axis and size is None else "any" if size is None else str(size)
             for axis, size in enumerate(spec.shape)]  # fmt: skip
    items = "one a call" if spec.axis is None else f"on axis {spec.axis}"
    if spec.axis is not None and spec.shape and spec.shape[spec.axis] is not None:
        items += f", {spec.shape[spec.axis]} a call"
    if spec.role == "constant":
        items = "the same for all"
    elif spec.role == "state":
        items = f"fed back from {spec.source!r}" + ("" if spec.axis is None else f", on axis {spec.axis}")
    return name, spec.dtype, f"[{', '.join(sizes)}]", spec.role, items


def _output(model: Model, name: str) -> str:
    axis = model.axes.get(name, 0)
    return "compared as a whole" if axis is None else f"on axis {axis}"


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print left-aligned columns; names that are too long are cut in the middle."""
    lines = [tuple(map(_short, row)) for row in rows]
    if not lines:
        return
    widths = [max(len(row[place]) for row in (tuple(columns), *lines)) for place in range(len(columns))]
    echo()
    for row in (tuple(columns), *lines):
        echo("  ".join(f"{text:<{width}}" for text, width in zip(row, widths, strict=True)).rstrip())


def _short(text: str, longest: int = 48) -> str:
    if len(text) <= longest:
        return text
    half = (longest - 1) // 2
    return f"{text[:half]}…{text[-half:]}"


def _contents(given: Inspected) -> None:
    total = sum(item.macs or 0 for item in given.operators)
    rows = [
        (item.op, str(item.count), "" if item.macs is None else _large(item.macs), _share(item.macs, total))
        for item in given.operators[:LONGEST]
    ]
    rest = given.operators[LONGEST:]
    names = ", ".join(f"{item.count} {item.op}" for item in rest)
    if rest:
        rows.append((f"{len(rest)} more types", str(sum(item.count for item in rest)), "", ""))
    _table(("operator", "count", "MACs of one item", "share"), rows)
    if rest:
        _paragraph(names, indent="  ")
    if total:
        echo(f"{_large(total)} MACs in all")
    _weights(given)
    if given.remarks:
        echo("\nremarks")
    for remark in given.remarks:
        _paragraph(remark, first="- ", indent="  ")


def _weights(given: Inspected) -> None:
    total = sum(item.bytes for item in given.weights)
    shown = [item for item in given.weights if item.bytes >= SMALL * total]
    rows = [(item.where, item.dtype, str(item.tensors), _bytes(item.bytes)) for item in shown]
    rest = [item for item in given.weights if item not in shown]
    if rest:
        rows.append(("small constants", "", str(sum(i.tensors for i in rest)), _bytes(sum(i.bytes for i in rest))))
    _table(("weights in", "dtype", "tensors", "size"), rows)


def _preparation(given: Inspected, prepared: Inspected | None) -> None:
    """Say in what the model that targets get differs from the file."""
    if prepared is None:
        return
    told = []
    before, after = (sum(item.count for item in side.operators) for side in (given, prepared))
    if before != after:
        told.append(f"{before} operators become {after}")
    told += [
        f"{key} {value} becomes {prepared.versions.get(key, 'none')}"
        for key, value in given.versions.items()
        if prepared.versions.get(key) != value
    ]
    places = [{item.where for item in side.weights} for side in (given, prepared)]
    gone = sorted(places[0] - places[1])
    if gone:
        told.append(f"weights move from {', '.join(gone)} to {', '.join(sorted(places[1])) or 'nowhere'}")
    if told:
        _paragraph(f"prepared for targets: {'; '.join(told)}", first="\n")


def _verdicts(verdicts: Sequence[Verdict]) -> None:
    echo("\nwhat each target will do with it")
    nowhere = _nowhere(verdicts)
    blocks: dict[tuple[tuple[str, str, tuple[str, ...]], ...], list[str]] = {}
    for target in dict.fromkeys(verdict.target for verdict in verdicts):
        own = [verdict for verdict in verdicts if verdict.target == target and verdict.method not in nowhere]
        if own:
            via = f" (through {' > '.join(own[0].via)})" if own[0].via and not own[0].stops else ""
            blocks.setdefault(_rows(own), []).append(target + via)
    for rows, targets in blocks.items():
        _block(", ".join(targets), rows)
    if nowhere:
        _block("on no target", tuple((methods, f"no: {why}", ()) for why, methods in _grouped(nowhere).items()))


def _nowhere(verdicts: Sequence[Verdict]) -> dict[str, str]:
    """Return method -> why it cannot be, where every target says so for the same reason: the model's or the data's."""
    targets = {verdict.target for verdict in verdicts}
    reasons: dict[str, set[str]] = {}
    for verdict in verdicts:
        reasons.setdefault(verdict.method, set()).add(_reason(verdict))
    found = {method: next(iter(why)) for method, why in reasons.items() if len(why) == 1}
    return {method: why for method, why in found.items() if why and len(targets) > 1}


def _reason(verdict: Verdict) -> str:
    """Return why a cell cannot be, without the names of its method and target, so that equal ones are told once."""
    return _NAMED.sub("", verdict.stops)


def _grouped(reasons: Mapping[str, str]) -> dict[str, str]:
    found: dict[str, list[str]] = {}
    for method, why in reasons.items():
        found.setdefault(why, []).append(method)
    return {why: ", ".join(methods) for why, methods in found.items()}


def _rows(own: Sequence[Verdict]) -> tuple[tuple[str, str, tuple[str, ...]], ...]:
    """Return (methods, what becomes of them, remarks), those that agree in one row; one alone where all agree."""
    found: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for verdict in own:
        found.setdefault((_reason(verdict), verdict.remarks), []).append(verdict.method)
    if len(found) == 1 and own[0].stops:
        return (("", f"no: {_reason(own[0])}", ()),)
    return tuple(
        (", ".join(methods), f"no: {why}" if why else "can be built", remarks)
        for (why, remarks), methods in found.items()
    )


def _block(title: str, rows: Sequence[tuple[str, str, tuple[str, ...]]]) -> None:
    if len(rows) == 1 and not rows[0][0]:
        _paragraph(f"{title}: {rows[0][1]}", first="  ", indent="    ")
        return
    _paragraph(title, first="  ", indent="    ")
    for methods, says, remarks in rows:
        _paragraph(f"{methods}: {'; '.join((says, *remarks))}", first="    ", indent="      ")


def _paragraph(text: str, *, first: str = "", indent: str = "") -> None:
    echo(textwrap.fill(text, WIDTH, initial_indent=first, subsequent_indent=indent, break_on_hyphens=False))


def _one_line(text: str) -> str:
    message, _, hint = text.partition("\n  hint: ")
    return f"{message} ({hint})" if hint else message


def _share(macs: int | None, total: int) -> str:
    return "" if not macs or not total else f"{macs / total:.0%}" if macs >= 0.01 * total else "<1%"


def _large(count: float) -> str:
    for unit in ("", " k", " M", " G", " T"):
        if count < 1000 or unit == " T":
            return f"{count:.3g}{unit}" if unit else str(int(count))
        count /= 1000
    raise AssertionError


def _bytes(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.3g} {unit}"
        count /= 1024
    raise AssertionError
