"""Whether a cell is what its label says: by the MACs that ran, or the weights that its artifact holds."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from harness import claims
from harness.bench.records import doubtful
from harness.leaderboard import table
from harness.leaderboard.claimed import claim_lines
from harness.leaderboard.notes import all_flags, note
from harness.leaderboard.rows import row
from harness.leaderboard.terminal import terminal
from harness.leaderboard.views import render
from harness.stats import coverage as cover
from harness.stats.coverage import coverage, falls_short, flags, judged_by, not_actually_quantised, share
from harness.types import Asked, Placement, Precision, StepRecord
from tests import records

INT8 = Precision("int8", "int8", "static")
DYNAMIC = Precision("int8", "int8", "dynamic")
WEIGHTS = Precision("int8", "float32", "weight-only")
INT4 = Precision("int4", "float32", "weight-only")
HALF, BRAIN = Precision("float16", "float16"), Precision("bfloat16", "bfloat16")
BINARY = Precision("binary", "binary", "static")
MIXED = Precision("int8", "int8", "static", overrides={"fc.weight": "float32"})


def ran(*parts):
    return [Placement("Conv", str(at), "k", "cpu", precision, macs) for at, (precision, macs) in enumerate(parts)]


FLOAT = ran(("float32", 100))


@pytest.mark.parametrize(
    ("precision", "placements", "weights", "judged", "expected"),
    [
        (INT8, ran(("int8", 60), ("float32", 40)), {"float32": 400}, "macs", 0.6),
        (INT8, ran(("int8", None), ("float32", None)), {"int8": 75, "float32": 100}, "weights", 0.75),
        (INT8, ran(("int8", None)), {}, "", None),  # operators alone tell nothing
        (DYNAMIC, [], {"int8": 90, "float32": 40}, "weights", 0.9),
        (WEIGHTS, FLOAT, {"float32": 400}, "weights", 0.0),  # it computes in float32, and holds float32
        (WEIGHTS, FLOAT, {"float16": 200}, "weights", 0.0),
        (WEIGHTS, FLOAT, {"int8": 60, "float32": 160}, "weights", 0.6),
        (WEIGHTS, FLOAT, {"int4": 30, "float32": 160}, "weights", 0.6),  # narrower than asked
        (INT4, FLOAT, {"int4": 30, "int8": 40}, "weights", 0.6),
        (INT4, FLOAT, {"int8": 40}, "weights", 0.0),
        (WEIGHTS, FLOAT, {"int8": 100, "int32": 4000, "int64": 80}, "weights", 1.0),  # biases and shapes are no weights
        (HALF, FLOAT, {"float16": 200}, "macs", 0.0),
        (HALF, [], {"float16": 200}, "weights", 1.0),
        (BRAIN, [], {"float32": 400}, "", None),  # bfloat16 is computed from weights in float32
        (Precision(), FLOAT, {"float32": 400}, "macs", 1.0),
    ],
)
def test_a_share_is_of_macs_where_they_tell_else_of_weights(precision, placements, weights, judged, expected):
    found = coverage(placements, precision, weight_bytes=weights)
    assert judged_by(found) == judged
    assert share(found) == (expected if expected is None else pytest.approx(expected))


@pytest.mark.parametrize(
    ("precision", "placements", "weights", "expected"),
    [
        (INT8, ran(("int8", 40), ("float32", 60)), {"int8": 100}, ("not_actually_quantised",)),
        (DYNAMIC, FLOAT, {"int8": 100}, ("not_actually_quantised",)),
        (WEIGHTS, FLOAT, {"float32": 400}, ("not_actually_quantised",)),
        (WEIGHTS, FLOAT, {"float16": 200}, ("not_actually_quantised",)),
        (WEIGHTS, FLOAT, {"int8": 100}, ()),
        (WEIGHTS, [], {"float32": 400}, ("not_actually_quantised",)),  # the artifact tells without a profiler
        (HALF, FLOAT, {"float16": 200}, ("stored_float16_executed_float32",)),
        (HALF, FLOAT, {"float32": 400}, ("not_actually_quantised",)),
        (BRAIN, FLOAT, {"float32": 400}, ("stored_bfloat16_executed_float32",)),
        (BRAIN, ran(("bfloat16", 9)), {"float32": 400}, ()),
        (Precision(storage="packed"), FLOAT, {"float32": 400}, ("stored_1bit_executed_float32",)),
        (Precision(storage="codebook"), FLOAT, {"float32": 400}, ("stored_codebook_executed_float32",)),
        (Precision(storage="sparse"), FLOAT, {"float32": 400}, ("stored_sparse_executed_dense",)),
        (MIXED, ran(("int8", 30), ("float32", 70)), {"int8": 30, "float32": 280}, ()),
        (MIXED, FLOAT, {"float32": 400}, ("not_actually_quantised",)),
    ],
)
def test_flags_follow_from_what_ran_and_what_is_stored(precision, placements, weights, expected):
    assert flags(placements, precision, coverage(placements, precision, weight_bytes=weights), ()) == expected


def test_a_file_that_came_in_int8_claims_nothing_when_it_runs_as_it_is():
    found = coverage(FLOAT, INT8, weight_bytes={"int8": 100}, claimed=False)
    assert flags(FLOAT, INT8, found, ()) == ("stored_int8_executed_float32",)
    assert not not_actually_quantised(found)
    assert not falls_short(found)


@pytest.mark.parametrize(
    ("precision", "placements", "weights", "least", "fails"),
    [
        (INT8, ran(("int8", 89), ("float32", 11)), {}, 0.9, True),
        (INT8, ran(("int8", 90), ("float32", 10)), {}, 0.9, False),
        (INT8, ran(("int8", 60), ("float32", 40)), {}, 0.6, False),
        (WEIGHTS, FLOAT, {"int8": 80, "float32": 80}, 0.9, True),
        (HALF, FLOAT, {"float16": 200}, 0.9, True),
        (BRAIN, FLOAT, {"float32": 400}, 0.9, True),
        (BINARY, FLOAT, {"float32": 400}, 0.9, True),
        (INT8, ran(("int8", None)), {}, 0.9, False),  # nothing is known
        (MIXED, ran(("int8", 30), ("float32", 70)), {}, 0.9, False),  # its label leaves layers in float
        (Precision(), FLOAT, {}, 0.9, False),
    ],
)
def test_strict_fails_what_ran_less_than_its_label_says(precision, placements, weights, least, fails):
    found = coverage(placements, precision, weight_bytes=weights)
    assert (doubtful((), found, least) is not None) == fails


def test_strict_says_how_much_ran():
    found = coverage(ran(("int8", 60), ("float32", 40)), INT8)
    assert doubtful((), found, 0.9) == "--strict: 60% of the MACs ran in int8 (at least 90% is asked for)"
    stored = coverage(FLOAT, WEIGHTS, weight_bytes={"int8": 80, "float32": 80})
    assert doubtful((), stored, 0.9) == "--strict: 80% of the weights are stored in int8 (at least 90% is asked for)"


@pytest.mark.parametrize("precision", [INT8, DYNAMIC, WEIGHTS, HALF, BRAIN, BINARY, MIXED, Precision()])
@pytest.mark.parametrize("placements", [FLOAT, ran(("int8", 40), ("float32", 60)), ran(("float16", 10)), []])
@pytest.mark.parametrize("weights", [{"float32": 400}, {"float16": 200}, {"int8": 100}, {}])
def test_the_board_says_not_actually_quantised_where_the_cell_and_strict_do(precision, placements, weights):
    found = coverage(placements, precision, weight_bytes=weights)
    own = flags(placements, precision, found, ())
    assert set(all_flags(records.record("m", coverage=found, flags=own))) == set(own)
    if "not_actually_quantised" in own:
        assert doubtful(own, found)


def test_the_board_and_the_cell_agree_on_the_one_flag():
    found = coverage(FLOAT, WEIGHTS, weight_bytes={"float32": 400})
    made = records.record("weight-only", coverage=found)
    assert "not_actually_quantised" in all_flags(made)
    assert "only 0 % of the weights are stored in int8" in note(made)
    assert cover.not_actually_quantised(found)


def step(name="prune", asked=None, *, unchanged=False, **counts):
    effect = {key: float(value) for key, value in counts.items()}
    return StepRecord("compress", name, {}, 0, 1.0, "p", "1", effect, asked, unchanged)


FIT = step("task", parameters=1000, nonzero_parameters=1000, macs=50_000)
HALF_OF_THE_CHANNELS = Asked("0.5 of the channels", {"parameters": 0.5})


@pytest.mark.parametrize(
    ("family", "changes", "after", "expected"),
    [
        ("pruning", (), step(asked=HALF_OF_THE_CHANNELS, parameters=400, nonzero_parameters=400, macs=9000), ()),
        (
            "pruning", (),
            step(asked=HALF_OF_THE_CHANNELS, parameters=970, nonzero_parameters=970, macs=49_000),
            ("less_than_asked",),
        ),
        (
            "pruning", (),
            step(asked=HALF_OF_THE_CHANNELS, parameters=1000, nonzero_parameters=1000, macs=50_000),
            ("not_actually_pruned",),
        ),
        ("pruning", (), step(unchanged=True), ("not_actually_pruned",)),
        ("pruning", ("weights",), step(parameters=1000, nonzero_parameters=1000, macs=50_000), ()),  # it only clips
        ("decomposition", (), step(parameters=1000, nonzero_parameters=1000), ("not_actually_decomposed",)),
        ("decomposition", (), step(parameters=990, nonzero_parameters=990, macs=50_000), ()),
        ("quantization", (), step(unchanged=True), ("not_actually_quantised",)),
        ("quantization", (), step(), ()),  # it asks for a precision; whether it is had, the artifact tells
        ("distillation", (), step(unchanged=True), ("not_actually_distilled",)),
        ("none", (), step(unchanged=True), ()),
    ],
)  # fmt: skip
def test_a_step_that_did_nothing_or_less_is_flagged(family, changes, after, expected):
    assert claims.step_flags(family, frozenset(changes), (FIT,), after) == expected


def test_what_was_asked_stands_beside_what_was_done():
    pruned = step("channel-pruning", HALF_OF_THE_CHANNELS, parameters=970, nonzero_parameters=970, macs=49_000)
    zeros = Asked("0.5 to become zero", {"nonzero_parameters": 0.5})
    sparse = step("magnitude-pruning", zeros, parameters=970, nonzero_parameters=485, macs=49_000)
    first, second = claims.sentences((FIT, pruned, sparse))
    assert first == "channel-pruning: asked 0.5 of the channels; 3 % of the parameters and 2 % of the MACs removed"
    assert second.startswith("magnitude-pruning: asked 0.5 to become zero; ")
    assert second.endswith("0 % of the MACs removed, 50 % of the weights zero or gone")


def test_the_board_says_what_was_asked_and_what_was_done():
    pruned = step("channel-pruning", HALF_OF_THE_CHANNELS, parameters=970, nonzero_parameters=970, macs=49_000)
    low = claims.LESS
    made = records.record("channel-pruning", lineage=(FIT, pruned), flags=(low,))
    assert "channel-pruning: asked 0.5 of the channels; 3 % of the parameters and 2 % of the MACs removed" in note(made)
    found = row(made, records.run_of((records.record(), made)))
    assert found["asked"] == "channel-pruning: 0.5 of the channels"
    assert found["achieved"] == "3 % of the parameters and 2 % of the MACs removed"
    assert found["parameters_removed"] == pytest.approx(0.03)
    assert found["macs_removed"] == pytest.approx(0.02)


def test_strict_fails_a_step_that_changed_nothing():
    assert doubtful(("not_actually_pruned",), None) == "--strict: not_actually_pruned"
    assert doubtful((claims.LESS,), None) is None


def test_each_method_has_a_line_with_what_it_was_asked_and_what_it_did():
    asked = "channel-pruning: 0.5 of the channels"
    did = "3 % of the parameters and 2 % of the MACs removed"
    dense = {"artifact_bytes": 100, "stored_bytes": 100, "stored_as": ""}
    packed = {"artifact_bytes": 100, "stored_bytes": 25, "stored_as": "codebook"}
    rows = [
        {"method": "baseline", "target": "a", "asked": "", "achieved": "", "weight_bytes_removed": None},
        {"method": "prune", "target": "a", "asked": asked, "achieved": did, "weight_bytes_removed": 0.03},
        {"method": "prune", "target": "b", "asked": asked, "achieved": did, "weight_bytes_removed": 0.03},
        {"method": "int8", "target": "a", "asked": "int8: int8 weights", "achieved": "", "weight_bytes_removed": 0.75},
        {"method": "int8", "target": "b", "asked": "int8: int8 weights", "achieved": "", "weight_bytes_removed": 0.5},
        {"method": "codebook", "target": "a", "asked": "codebook: 4 bits", "achieved": "", "weight_bytes_removed": 0.0},
    ]
    rows = [{**(packed if item["method"] == "codebook" else dense), **item} for item in rows]
    assert claim_lines(rows) == (
        ("prune", "0.5 of the channels", f"{did}; weights 3 % smaller"),
        ("int8", "int8 weights", "weights 75 % smaller on a; weights 50 % smaller on b"),
        ("codebook", "4 bits", "stored 75 % smaller"),
    )


@pytest.mark.parametrize("view", ["terminal", "markdown"])
def test_the_board_shows_these_lines(view):
    pruned = step("channel-pruning", HALF_OF_THE_CHANNELS, parameters=970, nonzero_parameters=970, macs=49_000)
    frame = table(records.run_of((records.record(), records.record("prune", lineage=(FIT, pruned)))))
    console = Console(record=True, width=200, file=io.StringIO())
    terminal(frame, console)
    text = console.export_text() if view == "terminal" else render(frame, "md").decode()
    assert "0.5 of the channels" in text
    assert "3 % of the parameters and 2 % of the MACs removed" in text


def test_a_step_that_was_not_asked_for_counts_does_not_tell_of_none():
    few = step("codebook", Asked("16 values"), parameters=997, nonzero_parameters=996, macs=50_000)
    assert claims.did((FIT,), few) == ""
    some = step("codebook", Asked("16 values"), parameters=1000, nonzero_parameters=700, macs=50_000)
    assert claims.did((FIT,), some) == "30 % of the weights zero or gone"
