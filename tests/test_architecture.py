"""The rules that keep the house in order, as tests."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from harness.cli.main import COMMANDS

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PLUGINS = sorted(PROJECT["entry-points"]["harness"].values())
FRAMEWORKS = {
    "torch", "onnx", "onnxruntime", "openvino", "nncf", "tensorrt", "ai_edge_litert", "ai_edge_quantizer",
    "litert_torch", "tensorflow", "sklearn", "matplotlib", "torchvision", "timm", "transformers", "PIL",
}  # fmt: skip
HELP_MODULES = 120


def modules_after(code: str) -> set[str]:
    """Run code in a fresh interpreter and return the modules that it loaded."""
    script = f"import sys\n{code}\nprint(*sorted(sys.modules), sep='\\n', file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stderr.split())


def test_help_is_light() -> None:
    loaded = modules_after("from harness.cli.main import call\nassert call(['--help']) == 0")
    assert len(loaded) <= HELP_MODULES
    assert (
        loaded & ({"importlib.metadata", "pluggy", "rich", "numpy", "pandas", "scipy", "msgspec"} | FRAMEWORKS) == set()
    )


def test_version_is_light() -> None:
    assert len(modules_after("from harness.cli.main import call\nassert call(['--version']) == 0")) <= HELP_MODULES


def test_import_harness_loads_nothing_else() -> None:
    assert len(modules_after("import harness") - modules_after("")) <= 2


def test_the_api_loads_no_framework() -> None:
    assert (
        modules_after("import harness.api") & ({"rich", "numpy", "pandas", "scipy", "importlib.metadata"} | FRAMEWORKS)
        == set()
    )


@pytest.mark.parametrize("plugin", PLUGINS)
def test_a_plugin_loads_no_framework(plugin: str) -> None:
    assert modules_after(f"import {plugin}") & FRAMEWORKS == set()


def test_the_worker_stays_lean() -> None:
    loaded = modules_after("import harness.measure.worker")
    assert loaded & ({"rich", "click", "pandas", "scipy"} | FRAMEWORKS) == set()


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_says_what_the_table_says(name: str) -> None:
    module, line = COMMANDS[name]
    command = import_module(module).command
    assert command.name == name
    assert command.get_short_help_str(limit=200) == line


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_loads_no_heavy_module(name: str) -> None:
    loaded = modules_after(f"from harness.cli.main import call\nassert call(['{name}', '--help']) == 0")
    assert loaded & ({"pluggy", "rich", "numpy", "pandas", "importlib.metadata"} | FRAMEWORKS) == set()


def test_command_files_are_the_table() -> None:
    offering = {path.stem for path in (ROOT / "harness/cli").glob("*.py") if "\ndef command(" in path.read_text()}
    assert offering == set(COMMANDS)


def hooks_of(package: Path) -> bool:
    """Tell whether a package's entry module implements a hook."""
    tree = ast.parse((package / "__init__.py").read_text())
    return any(isinstance(node, ast.FunctionDef) and node.name.startswith("harness_") for node in tree.body)


def test_folders_that_implement_hooks_are_the_entry_points() -> None:
    packages = [path.parent for place in ("plugins", "targets") for path in (ROOT / place).glob("*/__init__.py")]
    offering = {package.name for package in packages if hooks_of(package)}
    assert offering <= set(PLUGINS), "a package that implements a hook has no entry point: pip install -e . again"
    assert {package.name for package in packages} - set(PLUGINS) <= {"harness_torch"}
    assert set(PLUGINS) <= {package.name for package in packages}


def imported(path: Path) -> Iterator[str]:
    """Yield every module that a file imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            yield node.module or ""


RUNTIMES = {"onnxruntime", "openvino", "tensorrt", "tensorrt-rtx", "executorch", "ai-edge-litert", "nncf"}
VENDORS = ("ADB_", "ANDROID_")  # variables that one target reads


def test_the_core_names_no_runtime() -> None:
    """What it knows of them, plugins say; the conformance kit alone knows which frameworks a plugin may not import."""
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno}: {node.value}"
        for path in sorted((ROOT / "harness").rglob("*.py"))
        if path != ROOT / "harness" / "testing" / "declared.py"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        if node.value in RUNTIMES or node.value.startswith(VENDORS)
    ]
    assert wrong == []


def described(node: ast.ClassDef) -> set[str]:
    """Return the names that a class's docstring describes as its attributes."""
    text = (ast.get_docstring(node) or "").partition("Attributes:\n")[2].partition("\n\n")[0]
    found = re.findall(r"^    ([a-z_]\w*(?:, [a-z_]\w*)*): ", text, re.MULTILINE)
    return {name for names in found for name in names.split(", ")}


def attributes(node: ast.ClassDef) -> set[str]:
    """Return the fields, properties and attributes of a class."""
    fields = {
        item.target.id for item in node.body if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
    }
    own = {
        item.attr for item in ast.walk(node) if isinstance(item, ast.Attribute) and ast.unparse(item.value) == "self"
    }
    return fields | own | {item.name for item in node.body if isinstance(item, ast.FunctionDef)}


def test_docstrings_describe_fields_that_exist() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}: {node.name}.{name}"
        for place in ("harness", "plugins", "targets")
        for path in sorted((ROOT / place).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
        for name in described(node) - attributes(node)
    ]
    assert wrong == []


def test_the_core_imports_no_framework_and_no_plugin() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in sorted((ROOT / "harness").rglob("*.py"))
        for name in imported(path)
        if name.partition(".")[0] in FRAMEWORKS or name.startswith("harness_")
    ]
    assert wrong == []


def test_plugins_import_the_api_and_the_public_libraries_only() -> None:
    allowed = {"harness.api", "harness.testing", "harness_torch", "harness_onnx"}
    wrong = [
        f"{path.relative_to(ROOT)}: {name}"
        for place in ("plugins", "targets")
        for path in sorted((ROOT / place).rglob("*.py"))
        for name in imported(path)
        if name.partition(".")[0].startswith("harness")
        and not name.startswith(path.relative_to(ROOT / place).parts[0])
        and not any(name == fine or name.startswith(f"{fine}.") for fine in allowed)
    ]
    assert wrong == []


def test_only_one_module_knows_pluggys_manager() -> None:
    users = {
        str(path.relative_to(ROOT)) for path in (ROOT / "harness").rglob("*.py") if "pluggy" in set(imported(path))
    }
    assert users == {"harness/plugins.py", "harness/hookspecs.py"}
