"""Every code block of the documentation is executed, page by page, in a folder of its own."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
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
}
harness() { "$PYTHON" -m harness "$@"; }
"""


def script(page: Path) -> str:
    lines = [SHELL]
    for block in blocks(page):
        if block.language == "sh":
            lines.append(block.code)
        elif block.language == "python":
            target = block.title or "block.py"
            lines.append(f"cat > {target} <<'END_OF_BLOCK'\n{block.code}END_OF_BLOCK")
            lines.append('export PYTHONPATH="$PWD:$SITE"' if block.title else f'"$PYTHON" {target}')
        lines.append('export PYTHONPATH="$PWD:$SITE"')
    return "\n".join(lines)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", [p for p in PAGES if any(b.language == "sh" for b in blocks(p))], ids=lambda p: p.name)
def test_every_block_of_a_page_runs(page: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    env = {**os.environ, "SITE": str(site), "PYTHON": sys.executable, "PYTHONPATH": str(site)}
    done = subprocess.run(
        ["bash", "-c", script(page)], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=850, check=False
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


def generator():
    spec = importlib.util.spec_from_file_location("docs_generate", DOCS / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", ["reference.md", "checks.md"])
def test_the_reference_is_what_the_code_says(page: str) -> None:
    assert generator().PAGES[page]() == (DOCS / page).read_text(), "python docs/generate.py"


def test_the_reference_names_every_hook_field_and_public_name() -> None:
    import harness.api
    import harness.hookspecs

    text = (DOCS / "reference.md").read_text()
    hooks = [name for name in vars(harness.hookspecs) if name.startswith("harness_")]
    assert len(hooks) == 5
    for name in (*hooks, *harness.api.__all__):
        assert f"### {name}\n" in text
    for check in CHECKS:
        assert f"`{check}`" in (DOCS / "checks.md").read_text()


def test_spec_fields_are_documented() -> None:
    import dataclasses

    from harness import api

    tell = generator().attributes
    for spec in (api.WorkloadSpec, api.MethodSpec, api.ExporterSpec, api.TargetSpec, api.Sample, api.Examined):
        told = tell(spec.__doc__)
        plain = {"name", "summary", "params", "consumes", "produces", "export", "outputs", "task", "metric"}
        plain |= {"higher_is_better", "labelled", "modality"}  # say what they are by their names
        missing = {field.name for field in dataclasses.fields(spec)} - set(told) - plain
        assert not missing, f"{spec.__name__}: {missing}"


@pytest.mark.skipif(importlib.util.find_spec("mkdocs") is None, reason="the extra [docs] is not installed")
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", str(DOCS.parent / "mkdocs.yml"), "-d"]
    env = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run([*command, str(tmp_path)], capture_output=True, text=True, timeout=120, env=env, check=False)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    assert (tmp_path / "index.html").is_file()
    assert "https://fonts" not in (tmp_path / "index.html").read_text()


def test_tutorial_blocks_are_plugins() -> None:
    names = {
        block.title for page in ("first-method.md", "first-target.md") for block in blocks(DOCS / page) if block.title
    }
    assert names == {"harness_halve.py", "harness_slow_onnx.py"}
    assert not {"halve", "slow-onnx"} & {*load_registry().methods, *load_registry().targets}
