from __future__ import annotations

import io
import json
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import fakes
import pytest
import records

from harness.cli import common, conflicts, progress
from harness.cli.bench import build_request
from harness.cli.doctor import disturbances, extras, features, instructions, missing
from harness.cli.main import App, call
from harness.cli.planview import print_plan
from harness.config import parse_config, write_config
from harness.errors import Interrupted, PlanError, PluginError
from harness.measure.counters import Disturbance
from harness.plan import Request, TargetState, make_plan
from harness.store import RunStore
from harness.types import Availability, Capabilities

Run = Callable[..., tuple[int, str, str]]
NOTHING: dict[str, Any] = {
    "workloads": (), "methods": (), "targets": (), "profile": None, "threads": (), "batch": (), "models": (),
    "data": None, "factories": (), "config": None, "pack": None, "strict": None, "seed": None, "pythons": (),
    "timeout": None, "memory_limit": None, "scenario": (),
}  # fmt: skip


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    registry = fakes.registry()
    gone = TargetState(Availability(False, "no such runtime [here]"))
    states = fakes.states(lite=gone)
    monkeypatch.setattr(App, "registry", lambda self: registry)
    monkeypatch.setattr("harness.cli.targets.probe", lambda _registry, names, _pythons: {n: states[n] for n in names})
    monkeypatch.setattr(
        "harness.cli.bench._plan",
        lambda request, registry, _options, ui: make_plan(request, registry, fakes.states(), 2),
    )

    def call_it(*args: str) -> tuple[int, str, str]:
        code = call(list(args))
        told = capsys.readouterr()
        return code, told.out, told.err

    return call_it


def request(**options: Any) -> Request:
    return build_request(NOTHING | options, fakes.registry())


@pytest.mark.parametrize("listing", ["methods", "workloads", "targets", "plugins"])
def test_listings_are_tables_and_json(run: Run, listing: str) -> None:
    code, out, err = run(listing)
    assert (code, err) == (0, "")
    rows = json.loads(run(listing, "--json")[1])
    assert rows
    assert all(row["name"] in out for row in rows)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("methods", "channel-pruning"), ["0 < x < 1", "share removed", "excludes", "fake-dist 1.0"]),
        (("workloads", "digits"), ["x float32[n, 4]", "higher is better", "measured by default  yes"]),
        (("workloads", "file"), ["metric", "labelled"]),
        (("targets", "ort"), ["one of cpu, npu", "yes: a one-op model ran", "natively", "channel_multiple"]),
        (("targets", "lite"), ["no: no such runtime [here]"]),
    ],
)
def test_one_offer_shows_its_parameters(run: Run, args: tuple[str, ...], words: list[str]) -> None:
    code, out, _err = run(*args)
    assert code == 0
    assert [word for word in words if word not in out] == []
    assert isinstance(json.loads(run(*args, "--json")[1])["params"], list)


def test_a_target_that_is_not_here_says_why_and_what_to_install(run: Run) -> None:
    assert "no such runtime [here]" in run("targets")[1]
    told = json.loads(run("targets", "ort", "--json")[1])
    assert told["install"] == "pip install 'compression-harness[onnxruntime]'"
    assert told["availability"]["available"] is True


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (("methods", "int9"), 2, ["error: no method is called 'int9'", "hint: did you mean 'int8'?"]),
        (("bench", "--dry-run", "--methods", "int9"), 2, ["no method is called 'int9'"]),
        (("bench", "--profile", "quik"), 2, ["quik"]),
        (("bench", "--json"), 2, ["--format json"]),
        (("benh",), 2, ["did you mean 'bench'?"]),
        (("-p", "quantization", "plugins"), 2, ["'quantization' is not no:NAME"]),
        (("verify", "--nope"), 2, ["--nope"]),
    ],
)
def test_misuse_is_exit_code_2_with_a_hint(run: Run, args: tuple[str, ...], code: int, words: list[str]) -> None:
    found, out, err = run(*args)
    assert (found, out) == (code, "")
    assert [word for word in words if word not in err] == []


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (PluginError("it is broken"), 3, "error: it is broken"),
        (Interrupted("stopped", hint="run it again"), 130, "hint: run it again"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_errors_on_purpose_have_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: BaseException, code: int, told: str
) -> None:
    def fail(_app: App) -> None:
        raise error

    monkeypatch.setattr(App, "registry", fail)
    assert call(["methods"]) == code
    err = capsys.readouterr().err
    assert told in err
    assert "Traceback" not in err


def test_a_defect_is_one_sentence_and_keeps_its_traceback_in_a_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path))
    monkeypatch.delenv("HARNESS_DEBUG", raising=False)
    monkeypatch.setattr(App, "registry", lambda _app: 1 / 0)
    assert call(["methods"]) == 1
    err = capsys.readouterr().err
    (log,) = (tmp_path / "logs").glob("*-crash-*.log")
    assert f"ZeroDivisionError: division by zero; the traceback is in {log}" in err
    assert "Traceback" not in err
    assert "Traceback" in log.read_text()
    monkeypatch.setenv("HARNESS_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        call(["methods"])


def test_plugins_are_blocked_by_option_and_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, ...]] = []
    registry = fakes.registry()
    monkeypatch.setattr("harness.plugins.load_registry", lambda *, block, **_more: seen.append(block) or registry)
    monkeypatch.setenv("HARNESS_BLOCK", "onnx, no:null")
    assert call(["-p", "no:tflite", "-p", "no:onnx", "plugins", "list", "--json"]) == 0
    assert seen == [("onnx", "null", "tflite")]


def test_a_broken_plugin_is_a_row_with_its_distribution(run: Run) -> None:
    code, out, _err = run("plugins")
    assert code == 0
    assert "bad-dist 0.1" in out
    assert "ImportError on import: no such thing" in out


def test_dry_run_prints_rows_minutes_and_the_request(run: Run) -> None:
    code, out, err = run(
        "bench", "--dry-run", "--methods", "magnitude-pruning:ratio=0.3,0.5,int8", "--targets", "ort lite"
    )
    assert code == 0
    assert "magnitude-pruning:ratio=0.3" in out
    assert "no int8 here: its converter is not here" in out
    assert "predicted: " in out
    assert "plugin broken (bad-dist) is not fully used" in err
    asked = parse_config(out.partition("as bench.toml:")[2])
    assert asked == Request(methods=("magnitude-pruning:ratio=0.3,0.5", "int8"), targets=("ort", "lite"))


def test_dry_run_as_json_is_only_json(run: Run) -> None:
    told = json.loads(run("bench", "--dry-run", "--json", "--methods", "int8", "--targets", "lite")[1])
    assert [cell["labels"]["method"] for cell in told["cells"]] == ["baseline", "int8"]
    assert told["cells"][1]["impossible"]["status"] == "not-applicable"
    assert told["predicted_s"] > 0


@pytest.mark.parametrize(
    "sweep",
    [
        ("--batch", "1,4", "--threads", "1 2"),
        ("--batch", "1", "--threads", "1", "--batch", "4", "--threads", "2"),
        ("--threads", "1", "--batch", "1,4,1", "--threads", "2"),
    ],
)
def test_sweeps_add_up_however_they_are_given(run: Run, tmp_path: Path, sweep: tuple[str, ...]) -> None:
    repeated = ("--methods", "baseline", "--methods", "int8", "--targets", "ort")
    told = json.loads(run("bench", "--dry-run", "--json", *repeated, *sweep)[1])
    cells = [
        (c["labels"]["method"], c["cell"]["options"]["threads"], c["cell"]["options"]["batch"]) for c in told["cells"]
    ]
    assert sorted(cells) == sorted(product(("baseline", "int8"), (1, 2), (1, 4)))
    shown = run("bench", "--dry-run", *repeated, *sweep)[1]
    assert all(f"{threads} / {batch}" in shown for threads, batch in product((1, 2), (1, 4)))
    (tmp_path / "bench.toml").write_text(shown.partition("as bench.toml:")[2])
    again = json.loads(run("bench", "--dry-run", "--json", "-c", str(tmp_path / "bench.toml"))[1])
    assert again == told


def test_options_become_a_request() -> None:
    made = request(
        workloads=("digits",), methods=("baseline,int8", "fp16"), targets=("all",), profile="standard",
        threads=("1,all",), batch=("1 8",), strict=True, seed=3, timeout=5.0, memory_limit="2GiB",
    )  # fmt: skip
    assert made == Request(
        ("digits",), ("baseline", "int8", "fp16"), ("all",), "standard", ("1", "all"), (1, 8), 3, {}, True, 5.0, 2**31
    )
    assert request() == Request()


def test_options_win_over_a_file(tmp_path: Path) -> None:
    write_config(tmp_path / "bench.toml", Request(methods=("int8",), seed=4, strict=True))
    made = request(config=tmp_path / "bench.toml", seed=0)
    assert made == Request(methods=("int8",), seed=0, strict=True)


def test_a_model_of_ones_own_is_a_workload(tmp_path: Path) -> None:
    model = tmp_path / "my model,v1.onnx"
    assert request(models=(model,)).workloads == (f'file:path="{model}"',)
    data = request(models=(model,), data=tmp_path / "d.npz").workloads
    assert data == (f'file:data={tmp_path / "d.npz"}:path="{model}"',)
    both = request(models=(model, tmp_path / "b.onnx"), data=tmp_path / "d.npz").workloads
    assert both == (*data, f"file:data={tmp_path / 'd.npz'}:path={tmp_path / 'b.onnx'}")
    assert request(factories=("pkg.mod:make",)).workloads == ('factory:target="pkg.mod:make"',)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data": Path("d.npz")}, "no --model is given"),
        ({"models": (Path("m.onnx"), Path("m.pkl"))}, ".onnx, .pt2 or .tflite"),
        ({"batch": ("1,x",)}, "takes counts"),
        ({"batch": ("1", " ")}, "--batch takes a list of values"),
        ({"threads": ("",)}, "--threads takes a list of values"),
        ({"memory_limit": "much"}, "takes a size"),
        ({"pythons": ("tflite",)}, "TARGET=PATH"),
        ({"pythons": ("tflite=/no/such/python",)}, "does not exist"),
    ],
)
def test_options_that_do_not_parse_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError) as caught:
        request(**options)
    assert message in caught.value.message


def test_an_interpreter_is_not_followed_out_of_its_environment(tmp_path: Path) -> None:
    link = tmp_path / "python"
    link.symlink_to("/bin/sh")
    assert common.parse_pythons([f"tflite={link}"]) == {"tflite": str(link)}


@pytest.mark.parametrize(
    ("text", "size"), [("1", 1), ("500M", 500 * 10**6), ("1.5 GiB", 3 * 2**29), ("2kb", 2000), (None, None)]
)
def test_sizes(text: str | None, size: int | None) -> None:
    assert common.parse_size(text, "--memory-limit") == size


def test_the_newest_run_is_meant(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="no run at"):
        common.find_run(None, tmp_path / "none")
    for host, name in (("b", "20260101T000000Z-x"), ("a", "20260201T000000Z-x")):
        (tmp_path / host / name).mkdir(parents=True)
        (tmp_path / host / name / "run.json").touch()
    assert common.find_run(None, tmp_path).name == "20260201T000000Z-x"
    assert common.find_run(tmp_path / "b").name == "20260101T000000Z-x"


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    with RunStore.create(tmp_path / "results", records.info()) as store:
        store.write_record(records.record("baseline"))
        store.write_record(records.record("int8"))
    return store.folder


def test_the_board_of_the_newest_run_in_every_format(
    run: Run, run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, _err = run("leaderboard")
    assert code == 0
    assert "int8" in out
    assert run("leaderboard", str(run_folder), "--format", "md")[1].count("|") > 10
    assert json.loads(run("leaderboard", "--json")[1])["rows"]
    assert run("leaderboard", "-o", "board.csv")[:2] == (0, "")
    assert (tmp_path / "board.csv").read_text() == run("leaderboard", "--format", "csv")[1]


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (("--sort", "speed"), "did you mean 'speedup'?"),
        (("--workload", "digit"), "no row has the workload 'digit'"),
        (("--format", "parquet"), "add -o FILE"),
        (("-o", "board.txt"), "names no format"),
        (("--format", "terminal", "-o", "b.md"), "--format md"),
    ],
)
def test_a_board_that_cannot_be_is_refused(run: Run, run_folder: Path, args: tuple[str, ...], told: str) -> None:
    code, out, err = run("leaderboard", str(run_folder), *args)
    assert (code, out) == (2, "")
    assert told in err


def test_verify_finds_a_file_that_was_changed(run: Run, run_folder: Path) -> None:
    cell = next((run_folder / "cells").glob("*.json"))
    cell.write_text(cell.read_text().replace("int8", "int4").replace("baseline", "base"))
    code, out, _err = run("verify", str(run_folder))
    assert code == 4
    assert cell.name in out
    told = json.loads(run("verify", str(run_folder), "--json")[1])
    assert not told["ok"]
    assert told["problems"]


def test_a_folder_that_is_no_run_is_refused(run: Run, tmp_path: Path) -> None:
    assert run("verify", str(tmp_path))[0] == 2


def test_the_cache_is_shown_pruned_and_cleared(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path))
    assert json.loads(run("cache", "--json")[1]) == {"bytes": 0, "entries": 0, "root": str(tmp_path)}
    assert run("cache", "show")[1] == f"0 entries, 0 B in {tmp_path}\n"
    assert run("cache", "prune", "--older-than", "3", "--max-size", "1GiB")[0] == 0
    assert run("cache", "clear", "--yes")[1].startswith("removed 0 entries")


def test_brackets_in_a_plan_are_text(capsys: pytest.CaptureFixture[str]) -> None:
    gone = fakes.states(ort=TargetState(Availability(False, "[bold]not here[/bold]", "pip install 'x[y]'")))
    print_plan(make_plan(Request(targets=("ort",)), fakes.registry(), gone, 2), as_json=False)
    assert "[bold]not here[/bold]; pip install 'x[y]'" in capsys.readouterr().out.replace("\n", " ").replace("  ", " ")


def test_lines_say_when_a_stage_starts_ends_and_how_long_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    stream = io.StringIO()
    ui = progress.Timed(progress.make_ui(stream))
    for seconds, done in ((0, 0), (1, 1), (6, 2), (4, 4), (2, 4)):
        if done == 0:
            ui.stage("latency", 4)
        now[0] += seconds
        ui.advance("latency", done, "digits on ort")
    ui.note("a [note]")
    ui.close()
    assert stream.getvalue().splitlines() == [
        "latency: 4 to do",
        "latency: 0/4 after 0:00 - digits on ort",
        "latency: 2/4 after 0:07, 0:07 left - digits on ort",
        "latency: done in 0:11",
        "a [note]",
    ]
    assert ui.summary() == "time: latency 0:13, together 0:13"


def test_bars_draw_on_a_terminal() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    ui = progress.make_ui(stream)
    ui.stage("building", 2)
    ui.stage("building", 4)
    ui.advance("building", 3, "digits [int8]")
    ui.advance("unannounced", 1, "")
    ui.note("a [note]")
    ui.close()
    assert "building" in stream.getvalue()
    assert "a [note]" in stream.getvalue()


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (3725, "1:02:05"), (-1, "0:00")])
def test_clock(seconds: float, text: str) -> None:
    assert progress.clock(seconds) == text


def test_doctor_names_what_disturbs() -> None:
    quiet = {"hypervisor": "none", "governor": "performance"}
    assert disturbances(Disturbance(0.0, 0.0, 0), 0.1, 2, quiet) == []
    loud = {"hypervisor": "KVM", "governor": "powersave"}
    found = disturbances(Disturbance(0.08, 0.5, 3), 1.9, 2, loud)
    assert [line.split()[0] for line in found] == ["load", "steal", "cpu", "the", "virtualised", "frequency"]
    assert "cannot be excluded" in disturbances(Disturbance(None, None, None), None, 2, {})[0]
    assert features({"cpu_flags": "fpu avx2 avx512_vnni"}) == "avx2, avx512_vnni"


def test_doctor_names_what_an_extra_lacks() -> None:
    gone = fakes.states(ort=TargetState(Availability(False, "not installed", "")))
    rows = {row["for"]: row for row in extras(fakes.registry(), gone)}
    assert rows["target ort"]["install"] == "pip install 'compression-harness[onnxruntime]'"
    assert rows["target lite"]["state"] == "ok, fake 1"
    assert missing("no-such-extra") == []


INSTALLED = {
    "compression-harness": ("0.1.0", ("numpy>=1.26", "onnx>=1.17; extra == 'ort'", "lite>=2.0; extra == 'all'",
                                      "lite>=2.0; extra == 'lite'",
                                      "gone>=1; extra == 'gone'", "tool; sys_platform == 'never'")),
    "numpy": ("1.20.0", ()),
    "onnx": ("1.18+local", ("protobuf>=4,<6", "absent>=1", "extra-only; extra == 'reference'", "not a requirement !")),
    "protobuf": ("7.0", ()),
    "lite": ("1.9", ()),
    "stranger": ("1", ("numpy<1",)),
}  # fmt: skip


def test_doctor_names_versions_that_clash() -> None:
    """Those of harness and of what it stands on; an extra that is not here and a stranger's troubles are none."""
    found = conflicts.Installed(INSTALLED).clashes()
    assert [line.partition(": ")[0] for line in found] == [
        "compression-harness 0.1.0 requires numpy>=1.26, and 1.20.0 is installed",
        "compression-harness[all,lite] requires lite>=2.0, and 1.9 is installed",
        "onnx 1.18+local requires protobuf<6,>=4, and 7.0 is installed",
        "onnx 1.18+local requires absent>=1, which is not installed",
    ]
    assert found[0].endswith("pip install 'numpy>=1.26'")


def test_doctor_tells_what_the_runtimes_compute_with() -> None:
    capable = Capabilities("1", {}, isa=("avx2", "avx512-vnni"), evidence={"isa": "flags of /proc/cpuinfo"})
    states = {
        "ort": TargetState(Availability(True), capable),
        "gpu": TargetState(Availability(True), Capabilities("1", {}, isa=("sm_90",))),
        "lite": TargetState(Availability(False, "not installed", ""), None),
    }
    assert instructions(states) == {
        "ort": "avx2, avx512-vnni; int8: AVX-512 VNNI (flags of /proc/cpuinfo)", "gpu": "sm_90",
    }  # fmt: skip


def test_doctor_names_what_disturbs_at_any_hour() -> None:
    still = {"hypervisor": "none", "governor": "performance"}
    found = disturbances(Disturbance(0.0, 0.0, 0), 0.1, 2, {**still, "smt": "on", "no_turbo": "0", "cpu_quota": "1.5"})
    assert [line.split()[0] for line in found] == ["two", "turbo", "a"]
    calm = {**still, "smt": "notsupported", "no_turbo": "1", "cpu_quota": "none"}
    assert disturbances(Disturbance(0.0, 0.0, 0), 0.1, 2, calm) == []
