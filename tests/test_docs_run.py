"""Every code block of the documentation is executed, page by page, in a folder of its own."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.plugins import load_registry
from harness.testing import CHECKS

DOCS = Path(__file__).parents[1] / "docs"
PAGES = sorted(DOCS.glob("*.md"))
SHOWN = {"", "text", "diff"}  # output, or commands that tests/test_docs.py parses; not something to run
_BLOCK = re.compile(r"^```(\S*)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    language: str
    title: str
    code: str


def blocks(page: Path) -> Iterator[Block]:
    for found in _BLOCK.finditer(page.read_text()):
        yield Block(*(found.group(i) or "" for i in (1, 2, 3)))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_blocks_are_of_a_kind_that_is_tried(page: Path) -> None:
    for block in blocks(page):
        assert block.language in {"sh", "python", "toml", "json", *SHOWN}, f"{page.name}: {block.code[:60]!r}"
        if block.language == "python":
            compile(block.code, page.name, "exec")
        if block.language == "toml":
            tomllib.loads(block.code)


# pip installs beside the tests' environment, and the folder that the page works in comes first: as -e would have it
SHELL = """
set -eu
pip() {
  [ "$1" = install ] || return 0
  "$PYTHON" -m pip install -q --no-deps --no-build-isolation --upgrade --target "$SITE" "${@: -1}"
  rm -f "$SITE"/harness_*.py
  export PYTHONPATH="$PWD:$SITE"
}
python() { "$PYTHON" "$@"; }
harness() { "$PYTHON" $HARNESS "$@"; }
"""
# A page's commands run as they stand, with launches that are cut short: what is tried is the page, not the figures.
SHORT = """
import dataclasses
from harness import profiles
profiles.PROFILES["quick"] = dataclasses.replace(
    profiles.PROFILES["quick"], sets=3, rounds=2, batch_ns=2_000_000, batch_max_ns=50_000_000, measured_ns=4_000_000,
    warmup_ns=10_000_000, warmup_max_ns=60_000_000,
)
from harness.cli.main import main
main()
"""
_BEFORE = re.compile(r"<!-- before\n(.*?)-->", re.DOTALL)  # what a page's reader has already, and the tests have not


def script(page: Path) -> str:
    text = page.read_text()
    lines = [SHELL, *_BEFORE.findall(text)]
    for block in blocks(page):
        if block.language == "sh":
            lines.append(block.code)
        elif block.language in {"python", "toml", "json"}:
            target = block.title or f"block.{block.language}"
            lines.append(f"cat > {target} <<'END_OF_BLOCK'\n{block.code}END_OF_BLOCK")
            if block.language == "python" and not block.title:
                lines.append(f'"$PYTHON" {target}')
        lines.append('export PYTHONPATH="$PWD:$SITE"')
    return "\n".join(lines)


AS_WRITTEN = bool(os.environ.get("DOCS_AS_WRITTEN"))
LIMIT_S = 1800 if AS_WRITTEN else 280
RUN = [page for page in PAGES if any(block.language in {"sh", "python"} for block in blocks(page))]


def run_page(page: Path, folder: Path, cache: Path) -> str:
    """Run a page in a folder of its own; return what it said where it failed, else nothing."""
    for name in ("site", "work", "run"):
        (folder / name).mkdir(parents=True, mode=0o700)
    (folder / "short.py").write_text(SHORT)
    env = {
        **os.environ,
        "SITE": str(folder / "site"),
        "PYTHON": sys.executable,
        "HARNESS": "-m harness" if AS_WRITTEN else str(folder / "short.py"),
        "PYTHONPATH": str(folder / "site"),
        "XDG_CACHE_HOME": str(cache),
        "XDG_RUNTIME_DIR": str(folder / "run"),
        "RESULTS": str(DOCS.parent / "results"),
        "COLUMNS": "120",
    }
    command = ["bash", "-c", script(page)]
    try:
        done = subprocess.run(
            command, cwd=folder / "work", env=env, capture_output=True, text=True, timeout=LIMIT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        return f"took longer than {LIMIT_S} s: {(error.stderr or b'')[-2000:]!r}"
    return "" if done.returncode == 0 else f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


@pytest.fixture(scope="module")
def ran(tmp_path_factory, request) -> dict[str, Future[str]]:
    """Start the pages that are asked for, two at a time: most of a page is waiting for processes."""
    folder = tmp_path_factory.mktemp("docs")
    names = {item.callspec.params["page"] for item in request.session.items if item.function is test_every_block_runs}
    pool = ThreadPoolExecutor(2)
    found = {
        page.name: pool.submit(run_page, page, folder / page.stem, folder / "cache") for page in RUN if page in names
    }
    yield found
    pool.shutdown(cancel_futures=True)


@pytest.mark.slow
@pytest.mark.timeout(2 * LIMIT_S * len(RUN))
@pytest.mark.parametrize("page", RUN, ids=lambda page: page.name)
def test_every_block_runs(page: Path, ran: dict[str, Future[str]]) -> None:
    said = ran[page.name].result()
    assert not said, said


def generator():
    spec = importlib.util.spec_from_file_location("docs_generate", DOCS / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", ["reference.md", "checks.md", "runtime-bugs.md"])
def test_the_reference_is_what_the_code_says(page: str) -> None:
    assert generator().PAGES[page]() == (DOCS / page).read_text(), "python docs/generate.py"


def test_the_reference_names_every_hook_field_and_public_name() -> None:
    import harness.api
    import harness.hookspecs

    text = (DOCS / "reference.md").read_text()
    hooks = [name for name in vars(harness.hookspecs) if name.startswith("harness_")]
    assert hooks
    for name in (*hooks, *harness.api.__all__):
        assert f"### {name}\n" in text
    for check in CHECKS:
        assert f"`{check}`" in (DOCS / "checks.md").read_text()


def test_every_field_of_every_public_value_is_documented() -> None:
    import dataclasses

    from harness import types

    public = [getattr(types, name) for name in generator().INSIDE]
    for module in generator().SURFACE:
        found = importlib.import_module(module)
        public += [value for name in found.__all__ if dataclasses.is_dataclass(value := getattr(found, name))]
    assert len(public) > 30
    for kind in public:
        told = generator().attributes(inspect.getdoc(kind) or "")
        missing = [field.name for field in dataclasses.fields(kind) if not told.get(field.name)]
        assert not missing, f"{kind.__name__}: {missing}"


def test_inside_a_record_stands_all_that_it_holds() -> None:
    """The types that a Record's fields name are described too, however deep."""
    import dataclasses
    import re

    from harness import types

    described = {*generator().INSIDE, *importlib.import_module("harness.api").__all__}
    for name in ("Record", *generator().INSIDE):
        for field in dataclasses.fields(getattr(types, name)):
            for word in re.findall(r"[A-Z]\w+", str(field.type)):
                if dataclasses.is_dataclass(getattr(types, word, None)):
                    assert word in described, f"{name}.{field.name} holds {word}"


def test_tutorial_blocks_are_plugins() -> None:
    names = {
        block.title for page in ("first-method.md", "first-target.md") for block in blocks(DOCS / page) if block.title
    }
    assert names == {"harness_halve.py", "harness_slow_onnx.py"}
    assert not {"halve", "slow-onnx"} & {*load_registry().methods, *load_registry().targets}
