from __future__ import annotations

import importlib
import re
import shlex
import sys
from pathlib import Path

import jobs
import pytest
from click.testing import CliRunner
from plugin_factory import make_plugin

from harness.cli.main import COMMANDS, cli
from harness.leaderboard.columns import columns_markdown
from harness.plugins import load_registry
from harness.store import find_runs, verify_run

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def between(text: str, mark: str) -> str:
    found = re.search(rf"<!-- {mark} -->\n(.*)<!-- /{mark} -->", text, re.DOTALL)
    assert found, f"no <!-- {mark} --> in the page"
    return found.group(1)


def shown_commands():
    for page in PAGES:
        fenced = False
        for line in page.read_text().splitlines():
            fenced ^= line.startswith("```")
            if not fenced and not line.startswith("    "):
                continue
            found = re.match(r"\s*(?:\.venv/bin/)?(harness [a-z].*?)(?:\s{3,}.*)?$", line)
            if found:
                yield pytest.param(found.group(1), id=f"{page.name}: {found.group(1)[:50]}")


@pytest.mark.parametrize("line", list(shown_commands()))
def test_every_command_shown_parses(line):
    name, *args = shlex.split(line)[1:]
    assert name in COMMANDS
    command = cli.get_command(None, name)
    known = {option for parameter in command.params for option in parameter.opts}
    if hasattr(command, "commands"):
        assert not args or args[0] in command.commands
        return
    for arg in args:
        assert not arg.startswith("-") or arg.split("=")[0] in known, f"{name} has no option {arg}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_between_pages_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_readmes_plugin_works_as_it_stands(tmp_path, monkeypatch):
    source = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL).group(1)
    assert len([line for line in source.splitlines() if line.strip()]) <= 20
    monkeypatch.syspath_prepend(str(make_plugin(tmp_path, "zeros", source)))
    importlib.invalidate_caches()
    registry = load_registry(only={"zeros"})
    assert not registry.problems
    model = jobs.trained(tmp_path / "fit", epochs=1)
    job = jobs.make_job(tmp_path / "zeros-job")
    sparse = jobs.compress(registry.methods["zeros"].spec, model, job, model, share=0.5)
    from harness_torch import load, nonzero, parameters

    assert 0.4 < nonzero(load(sparse)) / parameters(load(sparse)) < 0.6
    sys.modules.pop("plug_zeros", None)


def reference_board(*options: str) -> str:
    runs = [str(path) for path in find_runs(ROOT / "results" / "reference")]
    assert runs, "results/reference holds no run"
    return CliRunner().invoke(cli, ["leaderboard", *runs, "--format", "md", *options]).output.strip()


def test_the_readmes_leaderboard_is_the_reference_run():
    assert between((ROOT / "README.md").read_text(), "leaderboard").strip() == reference_board("--pareto")


def test_the_whole_board_stands_beside_the_reference_run():
    assert (
        between((ROOT / "results" / "reference" / "README.md").read_text(), "leaderboard").strip() == reference_board()
    )


def test_the_reference_run_verifies():
    for path in find_runs(ROOT / "results" / "reference"):
        assert verify_run(path) == []


def test_the_page_of_columns_is_generated_from_them():
    assert columns_markdown().strip() in (ROOT / "docs" / "columns.md").read_text()


def test_the_help_page_is_one_screen():
    lines = CliRunner().invoke(cli, ["--help"]).output.splitlines()
    assert len(lines) <= 48
