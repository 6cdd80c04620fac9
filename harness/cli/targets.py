"""``harness targets``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from harness.cli.answer import echo
from harness.cli.common import (
    install_hint,
    json_option,
    note_contested,
    parse_pythons,
    print_facts,
    print_json,
    print_params,
    print_table,
    python_option,
)

if TYPE_CHECKING:
    from harness.cli.main import App
    from harness.plan import TargetState
    from harness.plugins import Registry
    from harness.specs import Offer, TargetSpec
    from harness.types import Capabilities

PROBE_S = 120.0
_FIELDS = (
    "float_precision", "granularity", "symmetric_only", "channel_multiple",
    "sparsity", "devices", "dynamic_batch", "isa",
)  # fmt: skip


@click.command("targets")
@click.argument("name", required=False)
@json_option
@python_option
@click.pass_obj
def command(app: App, *, name: str | None, as_json: bool, pythons: tuple[str, ...]) -> None:
    """List the targets, whether they run here, and what they can do.

    Those that run no model and are not part of "all" serve 'harness selftest' and plugin authors.
    NAME may hold parameters: 'tflite:xnnpack=false' is probed with them.
    """
    registry = app.registry()
    note_contested(registry, "target")
    if name is not None:
        registry.find("target", name.partition(":")[0])
    names = (name,) if name is not None else tuple(registry.targets)
    found = probe(registry, names, parse_pythons(pythons))
    offers = [registry.targets[item.partition(":")[0]] for item in names]
    states = dict(zip((offer.spec.name for offer in offers), found.values(), strict=True))
    if as_json:
        rows = [data(offer, states[offer.spec.name]) for offer in offers]
        print_json(rows if name is None else rows[0])
    elif name is not None:
        show(offers[0], states[offers[0].spec.name])
    else:
        print_table(
            ("target", "here", "runtime", "precisions", "summary, or why not"),
            (_row(o, states[o.spec.name]) for o in offers),
        )


def probe(registry: Registry, names: tuple[str, ...], pythons: Mapping[str, str]) -> Mapping[str, TargetState]:
    """Build and run a one-op model on each target, each in a process of its own."""
    from harness.build import probe_targets
    from harness.plan import Request, resolve_targets

    if not names:
        return {}
    wanted = resolve_targets(Request(targets=names, python=pythons), registry)
    return probe_targets(wanted, python=pythons, timeout_s=PROBE_S)


def _hint(offer: Offer[TargetSpec[Any]], state: TargetState) -> str:
    return "" if state.availability.available else state.availability.hint or install_hint(offer.spec.extra)


def _row(offer: Offer[TargetSpec[Any]], state: TargetState) -> tuple[str, ...]:
    found, can = state.availability, state.capabilities
    precisions = ", ".join(sorted(can.precisions)) if can else ""
    why_not = " - ".join(text for text in (found.reason, _hint(offer, state)) if text)
    here = "yes" if found.available else "no"
    return (
        offer.spec.name,
        here,
        f"{found.runtime} {found.version}".strip(),
        precisions,
        offer.spec.summary if found.available else why_not,
    )


def data(offer: Offer[TargetSpec[Any]], state: TargetState) -> dict[str, Any]:
    """Return a target as plain data."""
    from harness.params import describe

    spec = offer.spec
    return {
        "name": spec.name,
        "summary": spec.summary,
        "plugin": offer.plugin,
        "distribution": offer.distribution,
        "version": offer.version,
        "accepts": sorted(spec.accepts),
        "ranked": spec.ranked,
        "extra": spec.extra,
        "install": install_hint(spec.extra),
        "availability": state.availability,
        "capabilities": state.capabilities,
        "params": list(describe(spec.params)),
    }


def show(offer: Offer[TargetSpec[Any]], state: TargetState) -> None:
    """Print one target."""
    from harness.params import describe

    spec, found = offer.spec, state.availability
    here = f"yes: a one-op model ran in {found.seconds:.1f} s" if found.available else f"no: {found.reason}"
    echo(f"{spec.name}: {spec.summary}\n")
    print_facts([
        ("available here", here),
        ("install", _hint(offer, state)),
        ("runtime", f"{found.runtime} {found.version}".strip()),
        *((f"device {fact}", value) for fact, value in found.device.items()),
        ("plugin", f"{offer.plugin} ({offer.distribution} {offer.version})"),
        ("takes", ", ".join(sorted(spec.accepts))),
        ("ranked", "" if spec.ranked else "no: it runs no model"),
    ])  # fmt: skip
    if state.capabilities is not None:
        _show_capabilities(state.capabilities)
    print_params(describe(spec.params))


def _show_capabilities(can: Capabilities) -> None:
    echo(f"\ncapabilities (data of {can.version})")
    evidence = can.evidence
    rows = [
        ("precision", name, how, evidence.get(name) or evidence.get("precisions", ""))
        for name, how in can.precisions.items()
    ]
    rows += [("no precision", name, why, evidence.get(name, "")) for name, why in can.gaps.items()]
    rows += [("operator gap", name, why, evidence.get("op_gaps", "")) for name, why in can.op_gaps.items()]
    for field in (
        "float_precision",
        "granularity",
        "symmetric_only",
        "channel_multiple",
        "sparsity",
        "devices",
        "dynamic_batch",
        "isa",
    ):
        value = getattr(can, field)
        text = ", ".join(value) or "none" if isinstance(value, tuple) else str(value).lower()
        rows.append(("field", field, text, evidence.get(field, "")))
    print_table(("what", "name", "how, or why not", "evidence"), rows)
