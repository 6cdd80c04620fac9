"""Joules from a fake powercap tree, a stand-in of NVML and meters' logs, against closed forms."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import records
import way

from harness.audit import audit
from harness.audit import energy as audited
from harness.bench.asides import asides
from harness.bench.energy import read_energy
from harness.cli.main import call
from harness.errors import PlanError
from harness.measure import energy as launch
from harness.measure.meter import Meter
from harness.measure.sensors import Mark, NoEnergy, Nvml, Rapl
from harness.plan import Asides, Request, Resolved, TargetState
from harness.procure.power import power_of
from harness.procure.prices import Watts
from harness.profiles import PROFILES
from harness.stats.energy import energy
from harness.types import Availability, Capabilities, Energy, EnergyWindow, Step

WRAP = 262_143_328_850


def zone(root, name, says, uj, wrap=WRAP):
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "name").write_text(says + "\n")
    (folder / "max_energy_range_uj").write_text(f"{wrap}\n")
    (folder / "energy_uj").write_text(f"{uj}\n")
    return folder / "energy_uj"


@pytest.fixture
def powercap(tmp_path):
    """Two packages, one with its memory; cores and the platform are counted elsewhere."""
    return {
        "package": zone(tmp_path, "intel-rapl:0", "package-0", 1_000_000),
        "core": zone(tmp_path, "intel-rapl:0:0", "core", 500_000),
        "dram": zone(tmp_path, "intel-rapl:0:1", "dram", 10_000_000, 65_712_999_613),
        "other": zone(tmp_path, "intel-rapl:1", "package-1", WRAP - 2_000_000),
        "psys": zone(tmp_path, "intel-rapl:2", "psys", 7),
    }


def test_packages_and_memory_are_summed_and_a_counter_that_went_down_has_wrapped(tmp_path, powercap):
    sensor = Rapl(tmp_path)
    assert sensor.source == "RAPL: package-0, package-0 dram, package-1"
    before = sensor.mark()
    for name, uj in {
        "package": 4_500_000,
        "core": 3_000_000,
        "dram": 10_250_000,
        "other": 1_000_000,
        "psys": 99,
    }.items():
        powercap[name].write_text(str(uj))
    # package-0 3.5 J, its memory 0.25 J, package-1 from 2 J below the end to 1 J above the start: 3 J
    assert sensor.joules(before, sensor.mark()) == pytest.approx(6.75, abs=1e-12)


def test_a_counter_that_went_down_without_a_range_is_no_energy(tmp_path):
    file = zone(tmp_path, "intel-rapl:0", "package-0", 100, wrap=0)
    sensor = Rapl(tmp_path)
    before = sensor.mark()
    file.write_text("50")
    with pytest.raises(NoEnergy, match="counter_wrapped"):
        sensor.joules(before, sensor.mark())


def test_why_there_is_no_rapl_is_told(tmp_path, powercap, monkeypatch):
    with pytest.raises(NoEnergy, match="no_powercap"):
        Rapl(tmp_path / "nothing")

    def refused(self, *_args, **_more):
        raise PermissionError(13, "Permission denied")

    sensor = Rapl(tmp_path)
    monkeypatch.setattr(Path, "read_text", refused)
    with pytest.raises(NoEnergy, match=r"permission.*root alone"):
        sensor.mark()


def nvml(millijoules):
    """NVML's names, with a counter that a test sets; it measures nothing."""
    return SimpleNamespace(
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByIndex=lambda index: f"gpu{index}",
        nvmlDeviceGetHandleByUUID=lambda uuid: uuid,
        nvmlDeviceGetName=lambda handle: f"Test GPU {handle}",
        nvmlDeviceGetTotalEnergyConsumption=lambda handle: next(millijoules),
    )


def test_nvml_counts_millijoules_of_the_visible_gpu(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    sensor = Nvml(nvml(iter((1000, 1000, 5500))))
    assert sensor.source == "NVML: Test GPU gpu2"
    assert sensor.joules(sensor.mark(), sensor.mark()) == 4.5


def test_a_gpu_without_the_counter_is_a_reason():
    def refuses(_handle):
        raise RuntimeError("Not Supported")

    library = nvml(iter(()))
    library.nvmlDeviceGetTotalEnergyConsumption = refuses
    with pytest.raises(NoEnergy, match="no_nvml: Not Supported"):
        Nvml(library)


def log(path, lines, head="timestamp,watts"):
    path.write_text("\n".join([head, *lines]) + "\n")
    return path


def span(begin, end):
    return Mark(round(begin * 1e9), 0), Mark(round(end * 1e9), 0)


def test_a_meters_power_is_integrated_with_its_ends_inside_the_lines(tmp_path):
    """P(t) = 10 + 2 t: from a to b it is 10 (b - a) + (b^2 - a^2)."""
    start = 1.7e9
    meter = Meter(log(tmp_path / "m.csv", [f"{start + t},{10 + 2 * t}" for t in range(11)]), wait_s=0)
    assert meter.period_s == 1.0
    for a, b in ((0.0, 10.0), (0.25, 0.75), (1.3, 7.9), (4.0, 5.0)):
        assert meter.joules(*span(start + a, start + b)) == pytest.approx(10 * (b - a) + b * b - a * a, abs=1e-5)


@pytest.mark.parametrize(
    ("head", "lines", "joules"),
    [
        ("Date;Power (W)", ["2026-11-25T01:00:00+01:00;36,5", "2026-11-25T01:00:02+01:00;36,5"], 36.5),
        ("time\tmW", ["2026-11-25T00:00:00Z\t36500", "2026-11-25T00:00:02Z\t36500"], 36.5),
        ("ts,Energy [Wh]", ["1795564800000,1.0", "1795564802000,1.5"], 900.0),
        ("utc,kWh", ["2026-11-25 00:00:00,2.0", "2026-11-25 00:00:02,2.001"], 1800.0),
    ],
)
def test_formats_of_meters(tmp_path, head, lines, joules):
    begin = 1795564800.0  # 2026-11-25T00:00:00Z
    meter = Meter(log(tmp_path / "m.csv", lines, head), wait_s=0)
    assert meter.joules(*span(begin + 0.5, begin + 1.5)) == pytest.approx(joules, rel=1e-6)


def test_a_log_that_does_not_hold_the_window_is_no_energy(tmp_path):
    meter = Meter(log(tmp_path / "m.csv", [f"{1.7e9 + t},5" for t in (0, 1, 2, 3, 30, 31)]), wait_s=0)
    with pytest.raises(NoEnergy, match=r"gap: .* 27 s"):
        meter.joules(*span(1.7e9 + 1, 1.7e9 + 30.5))
    meter.wait_s = -10
    with pytest.raises(NoEnergy, match="no_overlap"):
        meter.joules(*span(1.7e9 + 30, 1.7e9 + 40))


def test_a_log_that_is_still_written_is_waited_for_and_its_torn_line_left_out(tmp_path):
    path = log(tmp_path / "m.csv", [f"{1.7e9 + t / 10},5" for t in range(10)])
    meter = Meter(path, wait_s=3)
    with path.open("a") as stream:
        stream.writelines(f"{1.7e9 + t / 10},5\n" for t in range(10, 31))
        stream.write("1.7e9 and half a li")
    assert meter.joules(*span(1.7e9 + 0.5, 1.7e9 + 2.5)) == pytest.approx(10.0, rel=1e-6)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("timestamp,watts\n1,2\n", "fewer than two moments"),
        ("when,how much\n1,2\n2,3\n", "no column of time"),
        ("time,volts\n1,2\n2,3\n", "no column of watts or joules"),
        ("time,watts\n1,2\n2,much\n", "line 3"),
        ("time,watts\n2,2\n1,3\n", "forward in time"),
    ],
)
def test_a_log_that_is_none_is_refused_before_anything_runs(tmp_path, text, says, capsys):
    path = tmp_path / "m.csv"
    path.write_text(text)
    with pytest.raises(PlanError, match=says):
        Meter(path)
    assert call(["bench", "--meter", str(path), "--targets", "null", "--out", str(tmp_path)]) == 2
    assert says in capsys.readouterr().err


def windows(*rows):
    return tuple(EnergyWindow(10**9 * 10 * at, *row) for at, row in enumerate(rows))


BUSY = windows(*[(2.0, 100, 50.0 + extra) for extra in (0, 1, 2, 3, 4, 5)])
IDLE = windows((3.0, 0, 30.0), (2.0, 0, 20.0))


def test_joules_by_hand():
    found = energy("E2", "RAPL", BUSY, IDLE)
    assert found.idle_watts == 10.0
    assert found.joules.point == pytest.approx(0.525)
    assert (found.joules.low, found.joules.high) == pytest.approx((0.50, 0.55))
    assert found.watts.point == pytest.approx(26.25)
    assert found.active_joules.point == pytest.approx((52.5 - 20) / 100)


def test_a_counter_that_stands_still_is_not_zero_joules():
    found = energy("E2", "RAPL", windows((2.0, 100, 0.0)), ())
    assert (found.level, found.joules) == ("E0", None)
    assert "counter_static" in found.reason


def test_without_a_sensor_the_level_is_e0_and_the_reason_is_told(monkeypatch):
    monkeypatch.setattr(launch, "Rapl", lambda: Rapl(Path("/nowhere")))
    found = read_energy(None, ["CPU"], "", PROFILES["quick"], seed=0, timeout_s=1).result
    assert (found.level, found.joules) == ("E0", None)
    assert "no_powercap" in found.reason


def test_a_window_lasts_for_enough_periods_of_its_sensor(tmp_path):
    slow = Meter(log(tmp_path / "m.csv", [f"{1.7e9 + t},5" for t in range(0, 60, 2)]))
    assert launch.window_s(PROFILES["quick"], slow) == 20.0
    assert launch.window_s(PROFILES["standard"], slow) == 200.0
    assert launch.window_s(PROFILES["standard"], Nvml(nvml(iter((1,))))) == 30.0


def test_the_plan_counts_the_windows_of_the_sensor_that_is_there(tmp_path, monkeypatch):
    monkeypatch.setattr(launch, "Rapl", lambda: Rapl(Path("/nowhere")))
    meter = log(tmp_path / "m.csv", [f"{1.7e9 + t},5" for t in range(0, 60, 2)])
    state = TargetState(Availability(True), Capabilities("1", {}, devices=("cpu",)))
    asked = {
        name: Resolved(Step(name), name, {"device": device}, name) for name, device in (("a", "cpu"), ("b", "cuda"))
    }
    wall = asides(Request(energy=True, meter=str(meter)), asked, dict.fromkeys(asked, state))
    assert wall.energy_s == pytest.approx(dict.fromkeys(asked, 0.3 + 6 * 20 + 2 * 4))
    monkeypatch.setitem(sys.modules, "pynvml", nvml(iter((1,))))
    chip = asides(Request(energy=True, profile="standard"), asked, dict.fromkeys(asked, state))
    assert chip.energy_s == pytest.approx({"b": 0.5 + 6 * 30 + 2 * 10})  # the CPU has no sensor: nothing to wait for
    assert asides(Request(), asked, {}) == Asides()
    lot = asides(Request(robustness=True, scenarios=("server", "sustained", "offline"), profile="publish"), {}, {})
    assert (lot.corruptions, lot.loads) == (75, {})
    assert lot.scenarios_s == {"server": 0.5 + 13 * 60, "sustained": 600.5, "offline": 60.5}


def test_the_higher_level_of_power_wins_and_levels_are_told():
    given = Watts(40.0, "E3", "wall meter", "2026-11-25", 38.0, 42.0)
    chip, wall = (energy(level, level, BUSY, IDLE) for level in ("E2", "E3"))
    assert power_of(chip, 1, given).level == "E3"
    assert power_of(chip, 1, given).watts.point == 40.0
    assert power_of(wall, 1, given).watts.point == pytest.approx(26.25)
    own = power_of(chip, 4, None)
    assert own.per_joule.point == pytest.approx(4 / 0.525)
    assert (own.per_joule.low, own.per_joule.high) == pytest.approx((4 / 0.55, 4 / 0.50))
    assert power_of(Energy("E0", reason="no_powercap"), 1, None) is None


def breaches(found, **changes):
    record = dataclasses.replace(records.record(), energy=dataclasses.replace(found, **changes))
    run = records.run_of((record,), started_utc="1970-01-01T00:00:00+00:00", finished_utc="1970-01-02T00:00:00+00:00")
    return " ".join(what for _demand, what in audited.breaches(run, record))


def test_verify_recomputes_joules_and_refuses_what_is_no_measurement():
    found = energy("E2", "RAPL", BUSY, windows())
    assert breaches(found) == ""
    assert "joules" in breaches(found, joules=dataclasses.replace(found.joules, point=0.1))
    assert "no measurement" in breaches(found, level="E1")
    assert "no measurement" in breaches(found, source="")
    assert "without a reason" in breaches(found, level="E0")
    assert "overlap" in breaches(energy("E2", "RAPL", (*BUSY[:5], BUSY[4]), ()))
    early = tuple(dataclasses.replace(w, begin_utc_ns=w.begin_utc_ns - 10**12) for w in BUSY)
    assert "outside" in breaches(energy("E2", "RAPL", early, ()))


def test_a_run_with_a_meter_gives_its_watts_to_board_verify_and_procure(tmp_path, capsys):
    """A meter that says 10 W throughout: joules of an inference are ten times its seconds, and none of them active."""
    toy = way.install(tmp_path)
    begin = time.time() - 5
    lines = [f"{begin + t / 100:.3f},10" for t in range(30_000)]
    meter = log(tmp_path / "meter.csv", lines)
    done = toy.run("--methods", "baseline,way-keep", "--targets", "way-a", "--meter", str(meter))
    assert done.returncode == 0, done.stderr
    record = toy.records()["way-keep", "way-a"]
    assert 0 < record["roofline"]["percent"] < 1  # eight multiply-accumulates in a Python loop
    found = record["energy"]
    assert (found["level"], found["source"], found["reason"]) == ("E3", "meter's log meter.csv", "")
    assert found["watts"]["point"] == pytest.approx(10.0, rel=0.01)
    each = sorted(w["seconds"] / w["inferences"] for w in found["windows"])
    assert len(each) == launch.WINDOWS
    assert found["joules"]["point"] == pytest.approx(10 * (each[2] + each[3]) / 2, rel=0.01)
    assert found["joules"]["low"] == pytest.approx(10 * each[0], rel=0.01)
    assert abs(found["active_joules"]["point"]) < 0.01 * found["joules"]["point"]
    assert found["idle_watts"] == pytest.approx(10.0, rel=0.01)
    run = str(toy.runs()[-1])
    assert call(["leaderboard", run, "--format", "md"]) == 0
    assert "mJ, items/J" in capsys.readouterr().out
    assert call(["procure", str(toy.out), "--workload", "way-task", "--json"]) == 0
    (offer,) = json.loads(capsys.readouterr().out)["offers"]
    assert offer["watts"]["point"] == pytest.approx(10.0, rel=0.01)
    assert offer["power"]["level"] == "E3"
    best = toy.records()[offer["best"]["name"].split(" ")[0], "way-a"]["energy"]
    assert offer["per_watt"]["point"] == pytest.approx(1 / best["joules"]["point"])
    assert list(Path(run, "parts").glob("*-energy.json"))
    short = {"rounds", "warm-up", "batch-size"}  # the toy's profile is a short one
    assert {problem.demand for problem in audit(Path(run))} <= short


def test_a_host_without_powercap_says_so_on_the_board():
    record = dataclasses.replace(records.record(), energy=Energy("E0", reason="no_powercap: nothing is there"))
    from harness.leaderboard import render, table

    text = render(table(records.run_of((record,))), "md").decode()
    assert "energy is not available: no\\_powercap" in text or "energy is not available: no_powercap" in text
    assert "E0" in text
