"""Run the files and write docs/real-files.md."""

from __future__ import annotations

import argparse
import sys

from benchmarks.real_files.fetch import NotThere
from benchmarks.real_files.running import CASES, METHODS, ROOT, TARGETS, Case, bench, keep, kept
from benchmarks.real_files.table import page

PAGE = ROOT / "docs" / "real-files.md"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.real_files", description=__doc__)
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="of a file or network, or a part of it")
    parser.add_argument("--quick", action="store_true", help="the part that every submission runs")
    parser.add_argument("--short", action="store_true", help="cut launches short: the same answers, and no speed-ups")
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--targets", nargs="+", default=TARGETS)
    parser.add_argument("--missing", action="store_true", help="only those that were not run here yet")
    parser.add_argument("--page", action="store_true", help="write the page from what was run before, and stop")
    return parser.parse_args()


def chosen(given: argparse.Namespace) -> list[Case]:
    found = [case for case in CASES if case.quick or not given.quick]
    if given.only:
        names = {case.name for case in CASES}
        found = [case for case in found if any(_named(case.name, text, names) for text in given.only)]
    return [case for case in found if not (given.missing and kept(case))]


def _named(name: str, text: str, names: set[str]) -> bool:
    return name == text if text in names else text in name


def main() -> int:
    given = arguments()
    for case in [] if given.page else chosen(given):
        try:
            row = bench(case, short=given.short, methods=given.methods, targets=given.targets)
        except NotThere as error:
            print(f"{case.name}: {error}", file=sys.stderr)
            continue
        keep(case, row)
        done = sum(cell.status == "ok" for cell in row.cells)
        print(f"{case.name} ({case.way}): {row.refused or f'{done} of {len(row.cells)} ok'}, {row.seconds:.0f} s")
    rows = [row for row in map(kept, CASES) if row is not None]
    PAGE.write_text(page(rows))
    print(f"wrote {PAGE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
