"""``harness placements``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli.common import find_run, json_option, print_facts, print_json, print_table
from harness.errors import PlanError

if TYPE_CHECKING:
    from harness.types import Coverage, Loaded, Placement, Record

_ID_SHOWN = 8  # characters of a cell_id; CELL takes any unambiguous beginning
NOT_KNOWN = "-"


@click.command("placements")
@click.argument("words", nargs=-1, metavar="[RUN] [CELL]")
@click.option("--by-op", is_flag=True, help="Add up the rows of one operator, precision and device.")
@click.option("--layers", is_flag=True, help="Show each operator's distance from the anchor's, the worst first.")
@json_option
def command(*, words: tuple[str, ...], by_op: bool, layers: bool, as_json: bool) -> None:
    """Show what ran where, operator by operator, in a cell of a run.

    With --json also the shared objects that the cell's target had loaded, with their build-ids. --layers shows what a
    run with 'harness bench --layers' found.

    RUN is a run's folder; the newest under ./results where it is left out. CELL is METHOD@TARGET, a part of that, or
    the beginning of a cell's number; without it the cells are listed with their coverage.
    """
    from harness.store import load_run
    from harness.types import Loaded

    run, cell = _divided(words)
    found = load_run(find_run(run))
    records = [record for record in found.records if record.placements or record.coverage]
    if cell is None and layers:
        raise PlanError("--layers shows one cell", hint="name it: METHOD@TARGET, or the beginning of its number")
    if cell is None:
        _list(records, as_json=as_json)
        return
    record = _chosen(records, cell)
    if layers and not as_json:
        _show_layers(record)
        return
    loaded = found.info.loaded.get(record.labels["target"], Loaded()) if found.info else Loaded()
    _show(record, loaded, by_op=by_op, as_json=as_json)


def _divided(words: Sequence[str]) -> tuple[Path | None, str | None]:
    """Tell a run's folder from a cell: what exists is a folder."""
    if len(words) > 2:
        raise PlanError(f"placements takes a run and a cell; got {len(words)} words")
    if len(words) == 2:
        return Path(words[0]), words[1]
    if words and Path(words[0]).is_dir():
        return Path(words[0]), None
    return None, words[0] if words else None


def title(record: Record) -> str:
    """Return METHOD@TARGET."""
    return f"{record.labels['method']}@{record.labels['target']}"


def _chosen(records: Sequence[Record], cell: str) -> Record:
    exact = [record for record in records if title(record) == cell]
    found = exact or [record for record in records if record.cell_id.startswith(cell) or cell in title(record)]
    if len(found) == 1:
        return found[0]
    listed = ", ".join(f"{record.cell_id[:_ID_SHOWN]} ({title(record)})" for record in (found or records)[:8])
    what = f"{len(found)} cells match {cell!r}" if found else f"no cell with placements matches {cell!r}"
    raise PlanError(what, hint=f"give one of {listed}" if listed else "this run has no placements")


def _percent(share: float | None) -> str:
    return NOT_KNOWN if share is None else f"{share:.1%}"


def _label(found: Coverage) -> str:
    """Return what a method asked for; of a file as it came, the arithmetic that is counted."""
    from harness.stats.coverage import GIVEN  # not on the way of --help

    return found.label if found.label not in {"", GIVEN} else found.wanted


def _list(records: Sequence[Record], *, as_json: bool) -> None:
    if as_json:
        print_json([{"cell": record.cell_id, "title": title(record), "workload": record.labels["workload"],
                     "coverage": record.coverage, "flags": record.flags} for record in records])  # fmt: skip
        return
    rows = []
    for record in records:
        found = record.coverage
        shares = (
            (NOT_KNOWN,) * 3
            if found is None
            else tuple(map(_percent, (found.by_macs, found.by_weights, found.by_time)))
        )
        why = "" if found is None else found.reason
        rows.append((record.cell_id[:_ID_SHOWN], record.labels["workload"], title(record),
                     _label(found) if found else NOT_KNOWN, *shares, ", ".join(record.flags) or why))  # fmt: skip
    print_table(("cell", "workload", "method@target", "asked for", "by MACs", "by weights", "by time", "flags"), rows)


def _show(record: Record, loaded: Loaded, *, by_op: bool, as_json: bool) -> None:
    if as_json:
        print_json({"cell": record.cell_id, "title": title(record), "coverage": record.coverage,
                    "flags": record.flags, "placements": record.placements, "loaded": loaded,
                    "layers": record.layers})  # fmt: skip
        return
    found = record.coverage
    artifact = record.artifact
    print_facts([
        ("cell", f"{record.cell_id}  {record.labels['workload']}  {title(record)}"),
        ("realised", f"{artifact.realised}: {artifact.how}" if artifact else ""),
        ("asked for", _label(found) if found else ""),
        ("coverage", "" if found is None else f"{_percent(found.by_macs)} of MACs, {_percent(found.by_time)} of time, "
         f"{_percent(found.by_weights)} of the weights stored so {found.reason}"),
        ("flags", ", ".join(record.flags)),
        ("loaded", f"{len(loaded.objects)} shared objects; --json names them" if loaded.objects else loaded.reason),
    ])  # fmt: skip
    rows = _added_up(record.placements) if by_op else [_row(item) for item in record.placements]
    print_table(("op", "kernel", "device", "precision", "MACs", "time", "name"), rows)


def _show_layers(record: Record) -> None:
    found = record.layers
    if found is None or found.reason:
        other = "it is the anchor" if record.anchor == record.cell_id else "its run did not compare them"
        why = found.reason if found else other
        raise PlanError(
            f"{title(record)} has no layers: {why}",
            hint="harness bench --layers compares every cell with its anchor, where the target can",
        )
    print_facts([
        ("cell", f"{record.cell_id}  {record.labels['workload']}  {title(record)}"),
        ("compared", f"{len(found.outputs)} outputs with the anchor's, over {found.items} items"),
        ("not compared", f"{found.unmatched} outputs of the anchor that this file has not by name and shape"),
    ])  # fmt: skip
    rows = [(item.name, item.op, str(item.place), f"{item.sqnr_db:.1f}") for item in found.outputs]
    print_table(("output", "op", "place", "SQNR dB"), rows)


def _row(item: Placement) -> tuple[str, ...]:
    macs = NOT_KNOWN if item.macs is None else f"{item.macs:,}"
    return item.op, item.kernel, item.device, item.precision, macs, _percent(item.time_share), item.name


def _added_up(placements: Sequence[Placement]) -> list[tuple[str, ...]]:
    groups: dict[tuple[str, str, str], list[Placement]] = {}
    for item in placements:
        groups.setdefault((item.op, item.device, item.precision), []).append(item)
    rows: list[tuple[str, ...]] = []
    for (op, device, precision), same in sorted(groups.items(), key=lambda pair: -_time(pair[1])):
        macs = sum(item.macs or 0 for item in same)
        kernels = sorted({item.kernel for item in same})
        shown = kernels[0] if len(kernels) == 1 else f"{len(kernels)} kernels"
        timed = any(item.time_share is not None for item in same)
        rows.append((op, shown, device, precision, f"{macs:,}" if macs else NOT_KNOWN,
                     _percent(_time(same) if timed else None), f"{len(same)} rows"))  # fmt: skip
    return rows


def _time(placements: Sequence[Placement]) -> float:
    return sum(item.time_share or 0.0 for item in placements)
