"""``--workload FILE_OR_MODULE:FACTORY`` for any layout of the user's folder, in this process and in every builder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from workload_jobs import job, workload

import harness_torch
from harness import environment, imports
from harness.api import BadModel

NET = """
import torch
class Net(torch.nn.Module):
    def __init__(self, classes=2):
        super().__init__()
        self.fc = torch.nn.Linear(3, classes)
    def forward(self, x):
        return self.fc(x)
"""
MAKE = """
import functools
import numpy as np
from harness_workloads import UserWorkload
{imports}

def make(classes=2):
    x = np.random.default_rng(0).normal(size=(80, 3)).astype("float32")
    return UserWorkload(Net(classes), {{"x": x}}, np.abs(x).argmax(1) % 2)

part = functools.partial(make, classes=4)
short = lambda: make(5)

class Maker:
    def __call__(self):
        return make(3)
    @staticmethod
    def static():
        return make(6)

maker = Maker()
ready = make(7)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the user's that is on no import path; what is imported from it is forgotten afterwards."""
    before = set(sys.modules)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in {"", str(tmp_path)}])
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


def lay(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


RELATIVE = {"pkg/models.py": "from .nets import Net", "pkg/nets.py": NET}
PACKAGE = {"pkg/__init__.py": "", **RELATIVE}
OWN_PATH = "import sys, os\nsys.path.append(os.path.join(os.path.dirname(__file__), 'lib'))\nfrom nets import Net"
# files, working folder, target
LAYOUTS = {
    "beside": ({"mine/models.py": "from nets import Net", "mine/nets.py": NET}, "mine", "models:make"),
    "file": ({"mine/models.py": "from nets import Net", "mine/nets.py": NET}, ".", "mine/models.py:make"),
    "package": (PACKAGE, ".", "pkg.models:make"),
    "package file": (PACKAGE, "/", "{}/pkg/models.py:make"),
    "absolute": ({**PACKAGE, "pkg/models.py": "from pkg.nets import Net"}, "/", "{}/pkg/models.py:make"),
    "sub": (
        {
            "pkg/__init__.py": "",
            "pkg/a/__init__.py": "",
            "pkg/a/models.py": "from ..nets import Net",
            "pkg/nets.py": NET,
        },
        ".",
        "pkg/a/models.py:make",
    ),
    "no init": (RELATIVE, ".", "pkg.models:make"),
    "no init file": (RELATIVE, "/", "{}/pkg/models.py:make"),
    "script in package": ({**PACKAGE, "pkg/models.py": "from nets import Net"}, ".", "pkg/models.py:make"),
    "init": ({"pkg/nets.py": NET, "pkg/__init__.py": "from .nets import Net"}, ".", "pkg:make"),
    "folder": ({"pkg/nets.py": NET, "pkg/__init__.py": "from .nets import Net"}, "/", "{}/pkg:make"),
    "own path": ({"models.py": OWN_PATH, "lib/nets.py": NET}, "/", "{}/models.py:make"),
    "no identifier": ({"my-model v2.py": NET}, "/", "{}/my-model v2.py:make"),
    "taken name": ({"mine/numpy.py": NET}, "/", "{}/mine/numpy.py:make"),
    "taken name beside": ({"mine/models.py": "from yaml import Net", "mine/yaml.py": NET}, "mine", "models:make"),
    "runtime": ({"openvino.py": NET}, ".", "openvino:make"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_layout_runs_and_its_file_loads_in_a_builder(
    layout: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, at, target = LAYOUTS[layout]
    names = [name for name in files if "import Net" in files[name] or len(files) == 1]
    lay(folder, {name: MAKE.format(imports=text) if name in names else text for name, text in files.items()})
    monkeypatch.chdir(folder / at if at != "/" else "/")
    work = workload("factory", target=target.format(folder))
    model = work.spec.fit(work.params, job(work, folder / "out"))
    x = work.spec.split(work.params, "test").inputs
    got = harness_torch.call(harness_torch.load(model), x)["output0"]
    assert "site-packages" in str(getattr(sys.modules.get("openvino"), "__file__", "site-packages"))
    script = (
        "from harness import imports; imports.take()\n"
        "import sys, numpy as np, harness_torch\nfrom pathlib import Path\n"
        "from harness_torch import travelling\n"
        f"module = travelling.read(Path({str(model.path)!r}))\n"
        f"x = {{'x': np.load({str(folder / 'x.npy')!r})}}\n"
        f"np.save({str(folder / 'y.npy')!r}, harness_torch.call(module, x)['output0'])"
    )
    np.save(folder / "x.npy", x["x"])
    done = subprocess.run(
        [sys.executable, "-P", "-c", script],
        env=environment.inherited(1),
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(np.load(folder / "y.npy"), got, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "classes"), [("part", 4), ("short", 5), ("maker", 3), ("Maker.static", 6), ("ready", 7), ("make", 2)]
)
def test_factories_of_every_kind(name: str, classes: int, folder: Path) -> None:
    lay(folder, {"models.py": MAKE.format(imports=NET)})
    work = workload("factory", target=f"{folder}/models.py:{name}")
    model = work.spec.fit(work.params, job(work, folder / "out"))
    assert harness_torch.load(model).fc.out_features == classes
    assert len(work.spec.fingerprint(work.params)) == 64


def test_the_fingerprint_follows_the_module_that_holds_the_network(folder: Path) -> None:
    prints = []
    for name, net in (("a", NET), ("b", NET.replace("self.fc(x)", "self.fc(x) * 2"))):
        lay(folder / name, {"models_.py": MAKE.format(imports="from nets_ import Net"), "nets_.py": net})
        work = workload("factory", target=f"{folder}/{name}/models_.py:make")
        prints.append(work.spec.fingerprint(work.params))
        for gone in ("models_", "nets_"):
            sys.modules.pop(gone, None)
    assert prints[0] != prints[1]


@pytest.mark.parametrize(
    ("text", "target", "message"),
    [
        (
            "import not_there_at_all",
            "{}/models.py:make",
            r"cannot be imported: ModuleNotFoundError.*models\.py, line 1",
        ),
        ("1 / 0", "{}/models.py:make", r"cannot be imported: ZeroDivisionError.*models\.py, line 1"),
        ("import sys; sys.exit(3)", "{}/models.py:make", "cannot be imported: SystemExit"),
        ("def make():\n    raise KeyError('oh')", "{}/models.py:make", r"raised KeyError: 'oh' \(.*models\.py, line 2"),
        ("x = 3", "{}/models.py:make", "has no function 'make'"),
        ("x = 3", "{}/other.py:make", "there is no file"),
        ("x = 3", "{}/models.py", "not of the form"),
        ("def make(a):\n    pass", "{}/models.py:make", "raised TypeError: make"),
    ],
)
def test_what_cannot_be_found_is_one_sentence(text: str, target: str, message: str, folder: Path) -> None:
    lay(folder, {"models.py": text})
    with pytest.raises(BadModel, match=message) as caught:
        _ = workload("factory", target=target.format(folder)).inputs
    assert "\n" not in caught.value.message


def test_workers_of_this_interpreter_import_from_where_the_parent_does(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(folder))
    assert environment.inherited(1)[imports.VARIABLE].split(":")[0] == str(folder)
    assert imports.VARIABLE not in environment.inherited(1, "/usr/bin/python3")
    told = imports.told(None)
    monkeypatch.setenv(imports.VARIABLE, told[imports.VARIABLE])
    monkeypatch.setattr(sys, "path", ["/other", sys.path[1]])
    imports.take()
    assert sys.path[0] == str(folder)
    assert sys.path[-1] == "/other"
