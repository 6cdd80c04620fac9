"""The physical floor: machine code that is what it says, ceilings above what really computes, closed-form floors."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import time

import numpy as np
import pytest
import records
import way

from harness.audit import floor as audited
from harness.bench.floor import Floors, floor_flags, violation
from harness.cli.main import call
from harness.measure import ceilings, kernels, peaks
from harness.stats.roofline import (
    LIMIT_HZ,
    LIMIT_PER_CYCLE,
    WINOGRAD,
    arithmetic,
    least_ns,
    limit_ns,
    roofline,
    work_of,
)
from harness.types import Ceilings, Energy, Interval, Placement

FLAGS = kernels.usable(("fma", "avx2", "avx512f", "avx512_vnni"))
x86 = pytest.mark.skipif(not FLAGS, reason=f"no kernels are known for {platform.machine()}")
TOP = Ceilings(
    1,
    macs_per_s={"float32": 50e9, "int8": 200e9},
    most_macs_per_s={"float32": 160e9, "int8": 640e9},
    bytes_per_s={"cache": 80e9, "dram": 10e9},
    most_bytes_per_s=20e9,
    cache_bytes=2**25,
    clock_hz=3.5e9,
    top_clock_hz=5e9,
)


def conv(macs, precision="float32", op="Conv", device="CPU"):
    return Placement(op, op, op, device, precision, macs)


def work(*placements, batch=1, weights=None, sparsity="none", lineage=(), realised="float32"):
    artifact = dataclasses.replace(records.artifact(realised=realised), weight_bytes=weights or {})
    return work_of(artifact, placements, lineage, batch, sparsity)


@x86
def test_ceilings_of_this_host_stand_above_what_a_library_reaches():
    """The product of a tuned library is slower than the multiply-add instructions that it is made of."""
    found = ceilings.measure(1)
    left, right = (np.random.default_rng(0).normal(size=(384, 384)).astype(np.float32) for _ in range(2))
    taken = []
    for _ in range(10):
        begin = time.perf_counter()
        np.matmul(left, right)
        taken.append(time.perf_counter() - begin)
    cores = os.cpu_count() or 1  # the library may use them all
    assert 384**3 / min(taken) < found.most_macs_per_s["float32"] * cores
    assert 0.5e9 < found.clock_hz < LIMIT_HZ
    for name, rate in found.macs_per_s.items():
        assert rate < found.most_macs_per_s[name]
        assert rate < LIMIT_PER_CYCLE[name] * LIMIT_HZ
    assert found.bytes_per_s["cache"] > 0.5e9
    assert found.bytes_per_s["dram"] > 0.1e9


@x86
def test_a_multiply_add_kernel_runs_a_whole_number_of_vectors_a_cycle():
    """On any x86-64: one or two vectors in a cycle of the clock that the other kernel reads, never more than two."""
    flags = ceilings.host.facts()["cpu_flags"].split()
    clock = peaks.clock_hz(-1)
    for kernel in kernels.usable(flags):
        rate = peaks.best_rate(kernels.multiply_add(kernel).call) * kernels.REGISTERS
        assert rate / clock < 2.2


@x86
def test_the_reader_reads_every_byte():
    """It walks to the end, not beyond."""
    import ctypes
    import mmap

    page = mmap.mmap(-1, 1 << 20)
    page[:] = b"\1" * (1 << 20)
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    kernels.reader().call(ctypes.c_void_p(address), 1 << 20)


def test_a_better_reading_raises_a_ceiling_and_a_worse_one_changes_nothing(tmp_path, monkeypatch):
    readings = iter(
        (TOP, dataclasses.replace(TOP, macs_per_s={"float32": 60e9}), dataclasses.replace(TOP, clock_hz=1e9))
    )
    monkeypatch.setattr(ceilings, "measure", lambda threads: next(readings))
    first = ceilings.ceilings(1, "host", root=tmp_path)
    assert first == TOP
    assert ceilings.ceilings(1, "host", root=tmp_path) == TOP  # read back, not measured again
    again = ceilings.ceilings(1, "host", again=True, root=tmp_path)
    assert again.macs_per_s == {"float32": 60e9, "int8": 200e9}
    assert ceilings.ceilings(1, "host", again=True, root=tmp_path).clock_hz == 3.5e9
    assert set(json.loads((tmp_path / "ceilings-host.json").read_text())) == {"1"}


def test_the_highest_clock_is_told_by_a_driver_that_counts_the_turbo_or_assumed():
    told = {"frequency_driver": "intel_pstate", "frequency_max_khz": "4800000"}
    assert ceilings.top_clock(told, 3e9)[0] == 4.8e9
    base = {"frequency_driver": "acpi-cpufreq", "frequency_max_khz": "2600000"}
    assert ceilings.top_clock(base, 3e9)[0] == 4.5e9
    assert ceilings.top_clock({}, None)[0] is None


def test_the_floor_is_work_over_ceiling():
    found = work(conv(40_000_000), conv(20_000_000, "int8"), batch=2)
    latency = records.latency(4.0)
    top = roofline(found, latency, TOP)
    assert top.floor_ns == pytest.approx(2 * (40e6 / 50e9 + 20e6 / 200e9) * 1e9)
    assert top.least_ns == pytest.approx(2 * (40e6 / WINOGRAD / 160e9 + 20e6 / 640e9) * 1e9)
    assert top.percent == pytest.approx(100 * top.floor_ns / latency.p50_ns.point)
    assert (top.bound, top.macs) == ("compute", 120_000_000)


def test_weights_beyond_the_cache_bind_by_memory():
    small = work(conv(1000, op="MatMul"), weights={"float32": 8_000_000})
    large = work(conv(1000, op="MatMul"), weights={"float32": 80_000_000, "int8": 20_000_000})
    latency = records.latency(40.0)
    assert roofline(small, latency, TOP).floor_ns == pytest.approx(8e6 / 80e9 * 1e9)
    found = roofline(large, latency, TOP)
    assert (found.bound, found.weight_bytes) == ("memory", 100_000_000)
    assert found.floor_ns == pytest.approx(1e8 / 10e9 * 1e9)
    assert least_ns(large, TOP) == pytest.approx((50e6 - 2**25) / 20e9 * 1e9)
    lookup = work(conv(1000, op="MatMul"), conv(None, op="Gather"), weights={"float32": 80_000_000})
    assert roofline(lookup, latency, TOP).bound == "compute"


def test_what_is_not_known_has_no_floor_and_says_why():
    assert "CUDAExecutionProvider" in work(conv(1000, device="CUDAExecutionProvider")).reason
    assert "not known" in work(conv(1000, "binary"), realised="binary").reason
    halved = records.lineage(parameters=100, nonzero=50)
    assert "skip zeros" in work(conv(1000), sparsity="unstructured", lineage=halved).reason
    assert work(conv(1000), sparsity="unstructured", lineage=records.lineage()).reason == ""
    assert arithmetic("dynamic-int8") == "int8"
    assert arithmetic("weight-only-int4") == "float32"
    bare = dataclasses.replace(TOP, most_macs_per_s={}, reason="no kernel")
    assert roofline(work(conv(1000)), records.latency(1.0), bare).least_ns is None


def test_without_placements_the_models_own_count_is_taken_in_the_fastest_arithmetic():
    found = work(lineage=records.lineage(macs=5_000_000))
    assert found.macs == {"float32": 5_000_000}
    assert found.least == {"int8": 5_000_000 / WINOGRAD}


def made(p50_ms, macs=200_000_000, **changes):
    latency = dataclasses.replace(records.latency(p50_ms), p50_ns=Interval(p50_ms * 1e6, None, None))
    base = records.record(latency=latency, placements=(conv(macs, op="MatMul"),))
    found = work_of(base.artifact, base.placements, base.lineage, 1, "none")
    top = changes.pop("top", TOP)
    return dataclasses.replace(base, roofline=roofline(found, latency, top) if top else None, **changes)


def test_a_cell_faster_than_physics_is_rejected_and_an_honest_one_is_not():
    slow, fast = made(5.0), made(1.0)  # 200 M multiply-accumulates take 1.25 ms at 160 G/s, and 4 ms at 50 G/s
    assert violation(slow.roofline, slow.latency) is None
    assert "1250 us" in violation(fast.roofline, fast.latency)
    assert floor_flags(fast.roofline, fast.latency) == ("floor_violation",)
    between = made(2.0)
    assert violation(between.roofline, between.latency) is None
    assert floor_flags(between.roofline, between.latency) == ("ceiling_stale",)
    assert floor_flags(slow.roofline, slow.latency) == ()


def test_a_cell_above_the_measured_ceiling_has_it_measured_again_once(monkeypatch):
    asked = []

    def read(threads, host_id, *, again=False):
        asked.append(again)
        return dataclasses.replace(TOP, macs_per_s={"float32": 120e9}) if again else TOP

    monkeypatch.setattr("harness.bench.floor.ceilings", read)
    floors = Floors("host", print)
    base = made(2.0)
    options = {"batch": 1, "threads": 1, "sparsity": "none"}
    for _ in range(2):
        found = floors.of(base.artifact, base.placements, base.lineage, base.latency, **options)
    assert asked == [False, True]
    assert found.percent == pytest.approx(100 * 200e6 / 120e9 * 1e9 / 2e6)


def breaches(record):
    return [what for demand, what in audited.breaches(record) if demand == "floor"]


def test_verify_demands_the_floor_whatever_the_record_says_of_its_host():
    assert breaches(made(5.0)) == []
    assert breaches(made(5.0, top=None)) == []
    assert "under the physical floor" in breaches(made(1.0))[0]
    assert "any CPU" in breaches(made(0.01, top=None))[0]  # without ceilings: the least that any CPU needs
    liar = dataclasses.replace(TOP, most_macs_per_s={"float32": 1e15})
    assert "no CPU" in breaches(made(5.0, top=liar))[0]
    assert "threads" in breaches(made(5.0, top=dataclasses.replace(TOP, threads=8)))[0]
    honest = made(5.0)
    painted = dataclasses.replace(honest, roofline=dataclasses.replace(honest.roofline, percent=99.0))
    assert "percent" in breaches(painted)[0]
    assert limit_ns(work(conv(64 * 7 * 10**6, op="MatMul")), 1) == pytest.approx(1e6)


def test_the_board_shows_the_roofline_where_it_is_asked_for(tmp_path, capsys):
    from harness.leaderboard import render, table

    frame = table(records.run_of((made(5.0),)))
    assert "roofline" not in render(frame, "md").decode()
    frame.attrs["show"] = ("roofline",)
    text = render(frame, "md").decode()
    assert "roofline, bound" in text
    assert "80.0 %, compute" in text
    assert frame["percent_of_roofline"][0] == pytest.approx(80.0)
    assert call(["leaderboard", "--show", "nothing"]) == 2


def test_a_target_that_claims_work_it_cannot_have_done_ends_as_a_failed_row(tmp_path):
    """Ten million million multiply-accumulates in a millisecond: the cell is rejected, its figures are kept."""
    toy = way.install(tmp_path)
    done = toy.run("--methods", "baseline", "--targets", "way-a:mode=leap")
    assert done.returncode == 1, done.stderr
    found = toy.records()
    leap = found["baseline", "way-a:mode=leap"]
    assert (leap["status"], leap["stage"], leap["blame"]) == ("failed", "latency", "way")
    assert "faster than the physical floor" in leap["reason"]
    assert "floor_violation" in leap["flags"]
    assert leap["latency"]["p50_ns"]["point"] > 0


def test_a_large_model_far_from_the_roof_is_told_beside_a_losing_cell():
    from harness.leaderboard.why import why_slow

    slow = dataclasses.replace(made(500.0), anchor="other")
    slow = dataclasses.replace(slow, latency=dataclasses.replace(slow.latency, verdict="slower"))
    assert "0.8 % of what this host can compute" in why_slow(slow, None, {})[-1]
    small = dataclasses.replace(made(500.0, macs=1000), anchor="other", latency=slow.latency)
    assert not any("compute" in text for text in why_slow(small, None, {}))


def test_energy_is_an_objective_only_where_all_have_it_of_one_level():
    from harness.leaderboard import mark_pareto, table

    first, second = records.record(), records.record("int8", latency=records.latency(3.2, speed_up=0.95))
    each = [energy_of(level, joules) for level, joules in (("E2", 2.0), ("E2", 1.0), ("E3", 1.0))]

    def front(*energies):
        pair = [dataclasses.replace(item, energy=found) for item, found in zip((first, second), energies, strict=True)]
        return list(mark_pareto(table(records.run_of(tuple(pair))))["pareto"])

    assert front(each[0], each[1]) == [True, True]  # slower and worse, but with less energy
    assert front(each[0], each[2]) == [True, False]  # a wall meter's joules do not compare with a chip's
    assert front(each[0], None) == [True, False]
    assert front(None, None) == [True, False]


def energy_of(level, joules):
    return Energy(level, "test", joules=Interval(joules, None, None))


def test_arithmetic_without_a_kernel_of_ours_runs_at_what_a_cycle_holds_of_it():
    per_cycle = {"float32": 32.0, "float16": 32.0, "int8": 1024.0, "bfloat16": 64.0}
    found = ceilings.filled({"float32": 100e9, "int8": 400e9, "bfloat16": 190e9}, per_cycle)
    assert found == {"float32": 100e9, "float16": 100e9, "int8": 3200e9, "bfloat16": 190e9}
    assert ceilings.filled({"float32": 1e9}, {}) == {"float32": 1e9}
