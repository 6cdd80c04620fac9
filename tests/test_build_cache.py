from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from harness.build.cache import SCHEMA, Cache, Result

KEY = "ab" + "0" * 62
OTHER = "cd" + "0" * 62


def write(cache, key=KEY, text="hello"):
    with cache.staging() as out:
        (out / "file").write_text(text)
        return cache.publish(out, Result(SCHEMA, key, "model", {"path": "file"}, "", 1.5))


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path / "cache")


def test_what_is_published_is_found_with_its_files(cache):
    written = write(cache)
    found = cache.get(KEY)
    assert found == written
    assert found.folder == cache.root / "ab" / KEY
    assert (found.folder / "file").read_text() == "hello"
    assert found.result.files == {"file": 5}


def test_what_is_not_published_leaves_nothing(cache):
    with cache.staging() as out:
        (out / "file").write_text("half")
    assert cache.get(KEY) is None
    assert list((cache.root / "tmp").iterdir()) == []


def test_the_first_of_two_builders_wins(cache):
    write(cache, text="first")
    write(cache, text="later")
    assert (cache.get(KEY).folder / "file").read_text() == "first"
    assert cache.show().entries == 1


@pytest.mark.parametrize("damage", ["not json", '{"schema": 1}', '{"schema": 99}', ""])
def test_a_corrupt_entry_is_logged_and_replaced(cache, caplog, damage):
    path = write(cache, text="first").folder / "result.json"
    path.write_text(damage)
    with caplog.at_level(logging.WARNING, "harness"):
        assert cache.get(KEY) is None
    assert KEY in caplog.text
    write(cache, text="second")
    assert (cache.get(KEY).folder / "file").read_text() == "second"


@pytest.mark.parametrize("change", [lambda path: path.unlink(), lambda path: path.write_text("longer than it was")])
def test_an_entry_whose_files_changed_is_built_again(cache, change):
    path = write(cache).folder / "file"
    path.chmod(0o644)
    change(path)
    assert cache.get(KEY) is None


def test_an_entry_that_points_to_a_removed_one_is_built_again(cache):
    parent = write(cache)
    with cache.staging() as out:
        target = os.path.relpath(parent.folder / "file", cache.folder(OTHER))
        cache.publish(out, Result(SCHEMA, OTHER, "model", {"path": target}, "", 1.0, outside=(target,)))
    assert cache.get(OTHER) is not None
    shutil.rmtree(parent.folder)
    assert cache.get(OTHER) is None


def test_prune_removes_the_longest_unused_first(cache):
    old, new = write(cache), write(cache, OTHER)
    os.utime(old.folder / "result.json", (1, 1))
    size = cache.show().bytes // 2
    assert cache.prune(max_bytes=size + 10).entries == 1
    assert cache.get(KEY) is None
    assert cache.get(OTHER).folder == new.folder


def test_prune_by_age_counts_from_the_last_use(cache):
    os.utime(write(cache).folder / "result.json", (1, 1))
    cache.get(KEY)
    assert cache.prune(older_than_s=3600).entries == 0
    os.utime(cache.folder(KEY) / "result.json", (1, 1))
    assert cache.prune(older_than_s=3600).entries == 1


def test_clear_leaves_nothing(cache):
    write(cache)
    write(cache, OTHER)
    assert cache.clear().entries == 2
    assert cache.show().entries == 0


def test_a_dead_builders_folder_is_swept_and_a_living_ones_is_not(cache, tmp_path):
    script = textwrap.dedent("""
        import sys, time
        from pathlib import Path
        from harness.build.cache import Cache
        with Cache(Path(sys.argv[1])).staging() as out:
            (out / "half").write_text("x")
            print("ready", flush=True)
            time.sleep(60)
    """)
    process = subprocess.Popen([sys.executable, "-c", script, str(cache.root)], stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline() == b"ready\n"
        assert cache.sweep() == 0
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert cache.sweep() == 1
        assert list((cache.root / "tmp").iterdir()) == []
    finally:
        process.kill()
        process.wait()


def test_processes_that_publish_and_clear_at_once_never_show_half_an_entry(cache):
    script = textwrap.dedent("""
        import sys, time
        from pathlib import Path
        from harness.build.cache import Cache, Result, SCHEMA
        cache = Cache(Path(sys.argv[1]))
        end = time.monotonic() + 1.5
        while time.monotonic() < end:
            with cache.staging() as out:
                (out / "file").write_bytes(b"x" * 10_000)
                cache.publish(out, Result(SCHEMA, sys.argv[2], "model", {}, "", 1.0))
    """)
    writers = [subprocess.Popen([sys.executable, "-c", script, str(cache.root), KEY]) for _ in range(2)]
    seen = 0
    while any(writer.poll() is None for writer in writers):
        entry = cache.get(KEY)
        seen += entry is not None
        cache.prune(max_bytes=-1)
        cache.sweep()
    assert seen > 0
    # a writer whose entry is cleared between its rename and its look raises: an error, but not half an entry
    assert {writer.returncode for writer in writers} <= {0, 1}


def test_the_environment_names_the_root(tmp_path, monkeypatch):
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "here"))
    assert Cache().root == tmp_path / "here"


def test_result_json_is_readable_by_a_person(cache):
    raw = json.loads((write(cache).folder / "result.json").read_text())
    assert raw["key"] == KEY
    assert time.time() - (cache.folder(KEY) / "result.json").stat().st_mtime < 60
