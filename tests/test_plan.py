from __future__ import annotations

import dataclasses
from typing import Any

import fakes
import pytest

from harness.errors import BadModel, PlanError, Unsupported
from harness.plan import Plan, PlannedCell, Request, TargetState, default_pipelines, make_plan, resolve_targets
from harness.plan.checks import export_path
from harness.plan.predict import COSTS, RATES, Asides, Load, anchor_s, measure_s
from harness.profiles import PROFILES
from harness.types import Availability, Step


def plan(registry: Any = None, states: Any = None, cores: int = 2, **asked: Any) -> Plan:
    return make_plan(Request(**asked), registry or fakes.registry(), states or fakes.states(), cores)


def only(made: Plan, method: str, target: str = "ort", workload: str = "digits") -> PlannedCell:
    labels = {"workload": workload, "method": method, "target": target}
    found = [cell for cell in made.cells if cell.labels == labels]
    assert len(found) == 1
    return found[0]


def reason(made: Plan, method: str, target: str = "ort", workload: str = "digits") -> str:
    impossible = only(made, method, target, workload).impossible
    assert impossible is not None
    return f"{impossible.status}: {impossible.reason}"


def test_a_request_of_nothing_is_the_defaults() -> None:
    made = plan()
    assert {cell.labels["workload"] for cell in made.cells} == {"digits"}
    assert {cell.labels["target"] for cell in made.cells} == {"lite", "null", "ort"}
    defaults = ["baseline", "channel-pruning", "fp16", "int8", "distillation+int8", "magnitude-pruning"]
    assert [cell.labels["method"] for cell in made.cells if cell.labels["target"] == "ort"] == defaults
    assert [cell.labels["method"] for cell in made.cells if cell.labels["target"] == "null"] == ["baseline"]


def test_default_pipelines_of_methods_that_are_gone_are_left_out() -> None:
    assert "distillation+int8" in default_pipelines(fakes.registry())
    assert "distillation+int8" not in default_pipelines(fakes.registry(without=["distillation"]))


def test_a_sweep_is_a_row_each_with_only_what_differs_from_the_defaults() -> None:
    made = plan(methods=("magnitude-pruning:ratio=0.3,0.5:epochs=4+int8",), targets=("ort",))
    labels = [cell.labels["method"] for cell in made.cells]
    assert labels == ["baseline", "magnitude-pruning:ratio=0.3+int8", "magnitude-pruning+int8"]
    assert made.cells[1].cell.pipeline == (Step("magnitude-pruning", {"ratio": 0.3}), Step("int8"))
    assert made.cells[1].pipeline[0].params == {"ratio": 0.3, "epochs": 4}
    assert made.cells[1].pipeline[0].plugin == "fake-methods"


def test_one_cell_is_one_row_however_it_is_written() -> None:
    made = plan(methods=("int8", "int8", "magnitude-pruning:ratio=0.5,.5", "magnitude-pruning"), targets=("ort", "all"))
    assert len({cell.cell_id for cell in made.cells}) == len(made.cells)
    assert sum(cell.labels["target"] == "ort" for cell in made.cells) == 3


def test_options_are_the_product_and_all_is_every_core() -> None:
    made = plan(methods=("baseline",), targets=("ort",), threads=("1", "all", "2"), batches=(1, 8), seed=7)
    assert [(cell.cell.options.threads, cell.cell.options.batch) for cell in made.cells] == [
        (1, 1),
        (1, 8),
        (2, 1),
        (2, 8),
    ]
    assert {cell.cell.options.seed for cell in made.cells} == {7}


def test_every_cell_has_the_baseline_of_its_place_as_anchor() -> None:
    made = plan(methods=("int8",), targets=("ort:provider=cpu,npu",), batches=(1, 8), states=fakes.states(
        **{"ort:provider=npu": fakes.available()}))  # fmt: skip
    anchors = {cell.cell_id: cell for cell in made.cells if cell.is_anchor}
    assert len(anchors) == 4
    assert all(cell.added for cell in anchors.values())
    for cell in made.cells:
        assert cell.anchor is not None
        assert anchors[cell.anchor].cell.target == cell.cell.target
        assert anchors[cell.anchor].cell.options == cell.cell.options


def test_a_baseline_that_is_asked_for_is_not_added() -> None:
    made = plan(methods=("int8", "baseline"), targets=("ort",))
    assert [(cell.labels["method"], cell.added) for cell in made.cells] == [("baseline", False), ("int8", False)]


def test_without_an_anchor_the_reason_is_told() -> None:
    gone = plan(fakes.registry(without=["baseline"]), methods=("int8",), targets=("ort",))
    assert (gone.cells[0].anchor, gone.cells[0].anchor_reason) == (None, "the method 'baseline' is not installed")
    onnx = plan(methods=("int8",), workloads=("file:path=m.tflite",), targets=("ort",))
    assert "baseline is not-applicable" in onnx.cells[1].anchor_reason


def test_formats_go_through_the_shortest_chain_of_exporters() -> None:
    made = plan(methods=("baseline",))
    assert only(made, "baseline", "ort").exporters == ("torch-onnx",)
    assert only(made, "baseline", "lite").exporters == ("torch-mid", "mid-tflite")
    assert only(made, "baseline", "null").exporters == ()


def test_the_shortest_chain_wins_over_the_first_name() -> None:
    ways = fakes.offers([fakes.exporter(*pair) for pair in ("ab", "bc", "cd", "ad", "da")], "p")
    assert export_path(ways, "a", {"d"}) == ("a-d",)
    assert export_path(ways, "a", {"c"}) == ("a-b", "b-c")
    assert export_path(ways, "a", {"z"}) is None
    assert export_path(ways, "z", {"z"}) == ()


def test_a_file_goes_where_its_format_is_taken() -> None:
    made = plan(methods=("baseline",), workloads=("file:path=m.onnx",))
    where = "file:path=m.onnx"
    assert only(made, "baseline", "ort", where).impossible is None
    assert "takes tflite; no installed exporter leads there from onnx" in reason(made, "baseline", "lite", where)


def test_a_method_that_cannot_take_the_format_is_not_applicable() -> None:
    made = plan(methods=("onnx-tool", "channel-pruning"), workloads=("digits", "file:path=m.onnx"), targets=("ort",))
    assert "method 'onnx-tool' takes a onnx model; here it is given torch" in reason(made, "onnx-tool")
    assert only(made, "onnx-tool", workload="file:path=m.onnx").impossible is None
    assert "given onnx" in reason(made, "channel-pruning", workload="file:path=m.onnx")


def test_what_a_workload_lacks_is_named() -> None:
    pipelines = ("magnitude-pruning", "int8", "distillation")
    made = plan(methods=pipelines, workloads=("unlabelled", "file:path=m.torch:labelled=true"), targets=("ort",))
    assert "needs labelled training data; workload 'unlabelled' has none" in reason(
        made, "magnitude-pruning", workload="unlabelled"
    )
    assert only(made, "int8", workload="unlabelled").impossible is None
    file = "file:labelled=true:path=m.torch"
    assert "needs a training loss" in reason(made, "distillation", workload=file)


def test_a_model_that_is_only_a_file_cannot_be_built_anew() -> None:
    torch_only = fakes.method("rebuild", "other", needs=frozenset({"torch-model"}))
    made = plan(
        fakes.registry(extra_methods=[torch_only]),
        methods=("rebuild",),
        workloads=("file:path=m.torch",),
        targets=("ort",),
    )
    assert "workload 'file' has only its file" in reason(made, "rebuild", workload="file:path=m.torch")


def test_what_a_method_needs_may_depend_on_its_parameters() -> None:
    tuned = fakes.method(
        "tuned", "other", params=fakes.Ratio, needs=lambda params: fakes.TRAINING if params.epochs else frozenset()
    )
    methods = ("tuned", "tuned:epochs=0")
    made = plan(fakes.registry(extra_methods=[tuned]), methods=methods, workloads=("unlabelled",), targets=("ort",))
    assert "needs labelled training data" in reason(made, "tuned", workload="unlabelled")
    assert only(made, "tuned:epochs=0", workload="unlabelled").impossible is None


def test_a_method_may_refuse_a_combination_of_its_parameters_before_anything_runs() -> None:
    def check(params: fakes.Ratio) -> str | None:
        return "ratio above 0.9 wants epochs" if params.ratio > 0.9 and not params.epochs else None

    registry = fakes.registry(extra_methods=[fakes.method("careful", "other", params=fakes.Ratio, check=check)])
    assert plan(registry, methods=("careful:ratio=0.95", "careful:epochs=0"), targets=("ort",)).cells
    with pytest.raises(PlanError, match=r"^method 'careful': ratio above 0\.9 wants epochs$"):
        plan(registry, methods=("careful:epochs=0:ratio=0.95",), targets=("ort",))


def test_a_workload_may_refuse_its_own_parameters() -> None:
    def refuse(error: Exception) -> Any:
        def produces(params: Any) -> str:
            raise error

        return fakes.registry(workloads=[fakes.workload("own", produces=produces)])

    made = plan(
        refuse(Unsupported("own needs a newer torch")), workloads=("own",), methods=("baseline",), targets=("ort",)
    )
    assert reason(made, "baseline", workload="own") == "not-applicable: own needs a newer torch"
    with pytest.raises(BadModel):
        plan(refuse(BadModel("no such file")), workloads=("own",))


def test_precisions_are_the_targets_to_refuse() -> None:
    made = plan(methods=("int8", "fp16"))
    assert only(made, "int8", "ort").impossible is None
    assert reason(made, "int8", "lite") == "not-applicable: target 'lite' has no int8 here: its converter is not here"
    assert reason(made, "fp16", "lite") == "not-applicable: target 'lite' has no float16 here: it lists float32"


def test_a_target_that_is_not_available_is_rows_with_its_reason() -> None:
    gone = TargetState(Availability(False, "no GPU was found", "install a driver"))
    made = plan(methods=("int8",), targets=("ort", "lite"), states=fakes.states(ort=gone))
    assert reason(made, "int8") == reason(made, "baseline") == "unavailable: no GPU was found; install a driver"
    assert only(made, "int8").impossible.blame == "fake-targets"  # type: ignore[union-attr]  # checked above
    assert plan(methods=("int8",), targets=("ort",), states={"x": gone}).cells[0].impossible is not None


@pytest.mark.parametrize(
    ("asked", "message", "hint"),
    [
        ({"methods": ("int9",)}, "no method is called 'int9'", "did you mean 'int8'?"),
        ({"workloads": ("digit",)}, "no workload is called 'digit'", "did you mean 'digits'?"),
        ({"targets": ("lit",)}, "no target is called 'lit'", "did you mean 'lite'?"),
        ({"python": {"ortt": "/x"}}, "no target is called 'ortt'", "did you mean 'ort'?"),
        ({"profile": "quik"}, "no profile is called 'quik'", "did you mean 'quick'?"),
        ({"methods": ("channel-pruning:ration=0.5",)}, "has no parameter 'ration'", "did you mean 'ratio'?"),
        ({"methods": ("channel-pruning:ratio=1.5",)}, "takes float, 0 < x < 1; got '1.5'", None),
        ({"methods": ("int8+magnitude-pruning",)}, "'magnitude-pruning' comes before 'int8'", "magnitude-pruning+int8"),
        (
            {"methods": ("distillation+channel-pruning",)},
            "'channel-pruning' comes before 'distillation'",
            "channel-pruning+dist",
        ),
        ({"methods": ("channel-pruning+magnitude-pruning",)}, "exclude each other", None),
        ({"methods": ("int8+fp16",)}, "'int8' and 'fp16' each ask the target for a precision", "two pipelines"),
        ({"methods": ("baseline+int8",)}, "'baseline' changes nothing", "write 'int8'"),
        ({"methods": ("int8,fp16",)}, "is due at character 5", "',' sweeps"),
        ({"workloads": ("digits+digits",)}, "only methods chain", "two items"),
        ({"threads": ("0",)}, "at least 1 or 'all'", None),
        ({"threads": ("8",)}, "more than the 2 cores", "use 'all'"),
        ({"batches": (0,)}, "at least 1; got 0", None),
        ({"threads": ()}, "at least one count", None),
    ],
)
def test_what_cannot_be_planned_is_said_with_what_to_do(asked: dict[str, Any], message: str, hint: str | None) -> None:
    with pytest.raises(PlanError) as caught:
        plan(**asked)
    assert message in caught.value.message
    assert (hint or "") in (caught.value.hint or "")


def test_no_default_workload_is_an_error_that_says_so() -> None:
    with pytest.raises(PlanError, match="no workload is named"):
        plan(fakes.registry(workloads=[fakes.workload("other")]))


def test_targets_to_probe_are_keyed_as_the_plan_wants_them() -> None:
    found = resolve_targets(Request(targets=("ort:provider=npu,cpu",)), fakes.registry())
    assert {text: item.params for text, item in found.items()} == {
        "ort:provider=npu": {"provider": "npu"},
        "ort": {"provider": "cpu"},
    }


def test_equal_plans_have_equal_hashes_whatever_is_installed() -> None:
    asked = Request(methods=("int8",), targets=("ort",))
    first = make_plan(asked, fakes.registry(), fakes.states(), 2)
    gone = fakes.states(ort=TargetState(Availability(False, "no")))
    assert first.plan_sha256 == make_plan(asked, fakes.registry(), gone, 2).plan_sha256
    changes = (
        {"profile": "standard"}, {"seed": 1}, {"methods": ("fp16",)}, {"python": {"ort": "/x"}},
        {"memory_limit_bytes": 2**30},
    )  # fmt: skip
    for change in changes:
        other = dataclasses.replace(asked, **change)  # type: ignore[arg-type]  # each of its field's type
        assert make_plan(other, fakes.registry(), fakes.states(), 2).plan_sha256 != first.plan_sha256
    limits = dataclasses.replace(asked, timeout_s=5, strict=True)
    assert make_plan(limits, fakes.registry(), fakes.states(), 2).plan_sha256 == first.plan_sha256


def test_shared_build_steps_are_predicted_once() -> None:
    quick = PROFILES["quick"]
    one = plan(methods=("baseline",), targets=("ort",))
    both = plan(methods=("baseline", "int8"), targets=("ort",))
    cost = {name: item.seconds for name, item in COSTS.items()}
    first = cost["fit"] + cost["export"] + cost["lower"] + measure_s(quick) + anchor_s(quick, 0, linked=False)
    # baseline takes any format, so it is no step of its own; int8 shares all but its quantization
    assert one.predicted_s == pytest.approx(first)
    assert both.predicted_s == pytest.approx(first + cost["quantize"] + measure_s(quick))
    assert both.predicted_s == pytest.approx(sum(cell.predicted_s for cell in both.cells))


def test_an_anchor_is_measured_once_more_for_each_further_group_and_for_the_link() -> None:
    quick = PROFILES["quick"]
    alone = anchor_s(quick, 7, linked=False)
    assert anchor_s(quick, 0, linked=False) == alone == 6 * 0.5
    assert anchor_s(quick, 8, linked=False) == pytest.approx(2 * alone + 6 * (0.7 + 0.3 + 0.3))
    assert anchor_s(quick, 7, linked=True) == pytest.approx(alone + 6 * 1.3)


def test_rows_that_cannot_be_cost_nothing_and_more_sets_cost_more() -> None:
    made = plan(methods=("int8",), targets=("lite",))
    assert only(made, "int8", "lite").predicted_s == 0
    assert plan(profile="standard").predicted_s > 1.5 * plan(profile="quick").predicted_s


def added_s(asides: Asides, **asked: Any) -> list[float]:
    """Return what is asked for beside latency adds to each possible cell, the anchor first."""
    request = Request(**{"workloads": ("photos",), "methods": ("int8",), "targets": ("ort",)} | asked)
    scored = {"score": lambda _outputs, labels: labels}
    rows = fakes.workload("rows"), fakes.workload("blind", labelled=False, **scored)
    registry = fakes.registry(workloads=[fakes.workload("photos", **scored), *rows])
    one, other = (make_plan(request, registry, fakes.states(), 2, *more) for more in ((), (asides,)))
    pairs = zip(one.cells, other.cells, strict=True)
    return [round(b.predicted_s - a.predicted_s, 6) for a, b in pairs if a.impossible is None]


def test_what_is_asked_for_beside_latency_counts_in_the_minutes() -> None:
    assert added_s(Asides(energy_s={"ort": 20.0})) == [20.7, 20.7]
    assert added_s(Asides(energy_s={"lite": 20.0})) == [0, 0]  # ort has no sensor
    driven = Asides(scenarios_s={"offline": 2.0, "sustained": 20.0})
    assert added_s(driven) == pytest.approx([24.4, 24.4])
    assert added_s(driven, batches=(8,)) == pytest.approx([3.2, 3.2])


# Seconds of a cell's own part, timed on the 2-core VM: network, numbers of an item, items, launches; then of its
# corrupted images in the four quick ways with the anchor's, and of its operators over the items compared.
TIMED = [
    ("digits-resnet8", Load(1024, 500, 1, 128), 4.2, 1.2),
    ("MobileNetV2", Load(150528, 147, 2, 128), 32.8, 17.2),
    ("ResNet-18", Load(150528, 42, 1, 42), 16.5, 5.8),
]


@pytest.mark.parametrize(("network", "load", "corrupted_s", "layers_s"), TIMED)
def test_items_that_are_run_again_are_predicted_by_their_number_and_size(
    network: str, load: Load, corrupted_s: float, layers_s: float
) -> None:
    ways, layers = (dataclasses.replace(load, compared=0), dataclasses.replace(load, corrupted=0, shards=0))
    images = sum(added_s(Asides(corruptions=4, loads={"photos": ways})))
    assert corrupted_s / 1.7 < images < corrupted_s * 1.7, network
    added = added_s(Asides(loads={"photos": layers}))
    assert added[0] == 0  # the anchor is what it is compared with
    assert layers_s / 1.2 < added[1] < layers_s * 1.2, network


def test_what_is_run_again_grows_with_items_ways_and_launches() -> None:
    def images(ways: int, load: Load, **asked: Any) -> list[float]:
        return added_s(Asides(corruptions=ways, loads=dict.fromkeys(("photos", "rows", "blind"), load)), **asked)

    one = Load(1000, 10, 1)
    copy, run = (RATES[name].item_s + 1000 * RATES[name].value_s for name in ("corrupt", "corrupted"))
    assert images(1, one) == pytest.approx([0.7 + 10 * (run + copy), 0.7 + 10 * run], abs=1e-6)  # copies are made once
    assert images(3, Load(1000, 20, 2)) == pytest.approx([1.4 + 60 * (run + copy), 1.4 + 60 * run], abs=1e-6)
    assert images(3, Load(1000)) == [0, 0]
    assert images(1, one, workloads=("rows", "blind"), methods=("baseline",)) == [0, 0]  # no score, no labels
    assert images(1, Load(1000, 10, 1, 10), targets=("null",)) == [0]
    assert added_s(Asides(corruptions=4)) == [0, 0]
