"""Write the reference pages from the code: ``python docs/generate.py``; a test compares them."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
import re
import typing
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SURFACE = ("harness.api", "harness.testing", "harness_torch", "harness_onnx")
HERE = Path(__file__).parent
# What a Record holds: read in ``harness_record_written``, built by harness alone.
INSIDE = (
    "Cell",
    "Step",
    "Coverage",
    "Interval",
    "Latency",
    "Memory",
    "Quality",
    "OracleCheck",
    "Closeness",
    "Slice",
    "Confidence",
    "Robustness",
    "Layers",
    "LayerDamage",
    "ScenarioResult",
    "Roofline",
    "Ceilings",
    "Energy",
    "EnergyWindow",
)
_NOTE = "<!-- written by docs/generate.py; do not edit -->"
_TABLES = "<!-- from here on written by docs/generate.py, from docs/assets/runtime-bugs*.json -->"


def signature(name: str, item: Any) -> str:
    """Return a function's exact signature, annotations as they are written."""
    text = str(inspect.signature(item)).replace("'", '"') if callable(item) else ""
    text = re.sub(r"<factory>", "…", text)
    return f"{name}{re.sub(r'<[^>]*object at[^>]*>', '…', text)}"


def attributes(doc: str) -> dict[str, str]:
    """Return the ``Attributes:`` section of a Google-style docstring, by name."""
    section = re.search(r"Attributes:\n(.*?)(?:\n\n|\n\s*Raises:|\Z)", doc, re.DOTALL)
    found: dict[str, str] = {}
    names: list[str] = []
    for line in section.group(1).splitlines() if section else ():
        begins = re.match(r"\s*([\w, ]+): (.*)", line) if not line.startswith("        ") or not names else None
        begins = begins or re.match(r"^ {4,8}([a-z_]\w*(?:, [a-z_]\w*)*): (.*)", line)
        if begins:
            names = [name.strip() for name in begins.group(1).split(",")]
            found |= dict.fromkeys(names, begins.group(2).strip())
        else:
            found |= {name: f"{found[name]} {line.strip()}" for name in names}
    return found


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("``", "`").replace("\n", " ")


def _default(field: dataclasses.Field[Any]) -> str:
    if dataclasses.is_dataclass(field.default):
        return f"`{type(field.default).__name__}()`"
    if field.default is not dataclasses.MISSING:
        return f"`{field.default!r}`" if not callable(field.default) else "a function"
    return "empty" if field.default_factory is not dataclasses.MISSING else "required"


def fields_table(kind: type) -> Iterator[str]:
    """Yield a table of a dataclass's fields."""
    told = attributes(inspect.getdoc(kind) or "")
    yield from ("| field | type | default | meaning |", "|---|---|---|---|")
    for field in dataclasses.fields(kind):
        row = (
            f"`{field.name}`",
            f"`{_cell(str(field.type))}`",
            _cell(_default(field)),
            _cell(told.get(field.name, "")),
        )
        yield f"| {' | '.join(row)} |"


def _summary(item: Any) -> str:
    doc = inspect.getdoc(item) or ""
    return re.split(r"\n\n?(?:Attributes|Args|Returns|Raises|Yields):", doc)[0].strip().replace("``", "`")


def _entry(name: str, item: Any) -> Iterator[str]:
    yield f"### {name}\n"
    if typing.get_origin(item) is not None:
        yield f"`{_cell(str(item).replace('typing.', ''))}`"
    elif inspect.isclass(item) and dataclasses.is_dataclass(item):
        yield f"{_summary(item)}\n"
        if dataclasses.fields(item):
            yield from fields_table(item)
    elif inspect.isclass(item):
        yield f"{_summary(item)}\n"
        yield from _members(item)
    elif callable(item):
        yield f"```text\n{signature(name, item)}\n```\n"
        yield _function(item)
    else:
        yield f"`{_plain(item)}`"
    yield ""


def _plain(item: Any) -> str:
    return f"{len(item)} entries" if isinstance(item, (dict, frozenset)) else repr(item)


def _members(kind: type) -> Iterator[str]:
    for name, member in vars(kind).items():
        function = member.fget if isinstance(member, property) else member
        if name.startswith("_") or not inspect.isfunction(function):
            continue
        text = name if isinstance(member, property) else signature(name, function)
        yield f"- `{text}`: {_cell(_summary(function))}"


def _function(item: Any) -> str:
    doc = (inspect.getdoc(item) or "").replace("``", "`")
    return re.sub(r"^(Args|Returns|Raises|Yields):$", r"\n**\1**\n", doc, flags=re.MULTILINE).replace("\n    ", "\n- ")


def reference() -> str:
    """Return the page of the public surface."""
    hooks = importlib.import_module("harness.hookspecs")
    lines = [
        "# The public surface",
        "",
        _NOTE,
        "",
        "All that a plugin may import, with exact signatures. How long it holds: [Stability](stability.md).",
        "",
        "## Hooks",
        "",
        "A plugin implements any of these with `@hookimpl`; they are called once, at start.",
        "",
    ]
    for name, item in vars(hooks).items():
        if name.startswith("harness_"):
            lines += [f"### {name}\n", f"```text\n{signature(name, item)}\n```\n", f"{inspect.getdoc(item)}\n"]
    for module_name in SURFACE:
        module = importlib.import_module(module_name)
        doc = (inspect.getdoc(module) or "").split("\n")[0]
        lines += [f"## {module_name}", "", doc.replace("``", "`"), ""]
        for name in sorted(module.__all__, key=str.lower):
            lines += _entry(name, getattr(module, name))
    types = importlib.import_module("harness.types")
    lines += [
        "## Inside a Record",
        "",
        "What `harness_record_written` can read; harness makes these, a plugin need not.",
        "",
    ]
    for name in INSIDE:
        lines += _entry(name, getattr(types, name))
    return "\n".join(lines).rstrip() + "\n"


def checks() -> str:
    """Return the page of the conformance kit's checks."""
    from harness.testing import CHECKS

    lines = [
        "# Checks of the conformance kit",
        "",
        _NOTE,
        "",
        "`harness plugins check PLUGIN` and `harness.testing` make these. A failing one says what was expected, what",
        "was seen and how to fix it. A gap that cannot be closed yet is declared in the spec, with its reason:",
        '`known_gaps={"seed:recurrent": "why"}`; when it closes, the check says so.',
        "",
        "| check | made on | makes sure that |",
        "|---|---|---|",
    ]
    lines += [f"| `{name}` | {', '.join(about.kinds)} | {about.title} |" for name, about in CHECKS.items()]
    return "\n".join(lines) + "\n"


def runtime_bugs() -> str:
    """Return the page of public bugs with its tables, from what ``harness selftest --runtimes --json`` printed."""
    assets = HERE / "assets"
    report = json.loads((assets / "runtime-bugs.json").read_text())
    others = [json.loads(path.read_text()) for path in sorted(assets.glob("runtime-bugs-*.json"))]
    here = {row["bug"]: row for row in report["rows"]}
    rows = [row for part in (report, *others) for row in part["rows"] if row["bug"] in here]
    on = f"On {report['cpu']}, Python {report['python']}, {report['started_utc'][:10]}: {_counts(report)}."
    head, mark, _tables = (HERE / "runtime-bugs.md").read_text().partition(_TABLES)
    lines = [f"{head}{mark}", "", on, ""]
    for runtime in sorted({row["runtime"] for row in rows}):
        lines += _runtime_table(runtime, [row for row in rows if row["runtime"] == runtime], here)
    return "\n".join(lines).rstrip() + "\n"


def _counts(report: dict[str, Any]) -> str:
    found = Counter(row["outcome"].replace("-", " ") for row in report["rows"])
    return ", ".join(f"{count} {word}" for word, count in found.most_common())


def _runtime_table(runtime: str, rows: list[dict[str, Any]], here: dict[str, Any]) -> Iterator[str]:
    """Yield the table of one runtime: a row for each bug, a column for each version, newest first."""
    versions = sorted({row["version"] for row in rows}, key=_version, reverse=True)
    own = next(here[row["bug"]]["version"] for row in rows)
    outcomes = {(row["bug"], row["version"]): row["outcome"].replace("-", " ") for row in rows}
    heads = " | ".join(version or "here" for version in versions)
    yield from (f"### {runtime}", "", f"| report | what it says | said to be hit | {heads} | seen in {own or 'none'} |")
    yield f"|---|---|---|{'---|' * len(versions)}---|"
    for bug in sorted({row["bug"] for row in rows}):
        row = here[bug]
        cells = [_marked(outcomes.get((bug, version), "")) for version in versions]
        told = (f"[{bug}]({row['url']})", row["summary"], f"{row['hit']} ({row['symptom']})", *cells, row["reason"])
        yield f"| {' | '.join(_cell(text) for text in told)} |"
    yield ""


def _marked(outcome: str) -> str:
    return f"**{outcome}**" if outcome in {"wrong", "refused", "crashed"} else outcome


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text))


PAGES = {"reference.md": reference, "checks.md": checks, "runtime-bugs.md": runtime_bugs}

if __name__ == "__main__":
    for page, write in PAGES.items():
        (HERE / page).write_text(write())
