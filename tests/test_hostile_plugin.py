"""A plugin that misbehaves where it is imported costs itself alone, and stdout holds the answer alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest
from plugin_factory import make_plugin

from harness.errors import PlanError, PluginError
from harness.plugins import load_registry

METHOD = """
from harness.api import MethodSpec, NoParams, hookimpl

@hookimpl
def harness_methods():
    yield MethodSpec(name={name!r}, family="other", summary="mine", params=NoParams, consumes=frozenset(),
                     compress=lambda model, params, job: model)
"""
LOUD = """
import ctypes, os, sys
print("\\x1b[31mhello from the plugin\\x1b[0m {")
os.write(1, b"\\x1b[2Jraw {\\n")
ctypes.CDLL(None).puts(b"from C {")
ctypes.CDLL(None).fflush(None)
sys.__stdout__.write("dunder {\\n")
""" + METHOD.format(name="loud")


def site(tmp_path, name, source):
    return make_plugin(tmp_path / name, name, source)


def harness(*args, path, **env):
    """Run the command line in a process of its own."""
    found = os.pathsep.join([*map(str, path), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": found, **env}
    command = [sys.executable, "-m", "harness.cli.main", *args]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)


@pytest.mark.parametrize(
    "args",
    [
        ("plugins", "--json"),
        ("plugins", "list", "--json"),
        ("methods", "--json"),
        ("methods", "loud", "--json"),
        ("workloads", "--json"),
        ("targets", "null", "--json"),
        ("bench", "--dry-run", "--json", "--targets", "null", "--methods", "baseline"),
        ("plugins", "check", "loud", "--quick", "--samples", "dense", "--json"),
    ],
)
def test_what_a_plugin_prints_is_no_part_of_the_answer(tmp_path, args):
    done = harness(*args, path=[site(tmp_path, "loud", LOUD)])
    assert json.loads(done.stdout), done.stderr
    assert done.stderr.count("hello from the plugin") >= 1
    for words in ("raw {", "from C {", "dunder {"):
        assert words in done.stderr


def test_help_and_version_still_go_to_stdout(tmp_path):
    path = [site(tmp_path, "loud", LOUD)]
    assert "--targets" in harness("bench", "--help", path=path).stdout
    assert harness("--version", path=path).stdout.startswith("harness ")


def test_a_table_goes_to_stdout(tmp_path):
    done = harness("plugins", path=[site(tmp_path, "loud", LOUD)])
    assert "loud" in done.stdout
    assert "hello" not in done.stdout


DEEDS = {
    "raise": "raise RuntimeError('x' * 200_000)",
    "exit": "import sys; sys.exit(7)",
    "interrupt": "raise KeyboardInterrupt",
    "generator": "raise GeneratorExit",
    "mute": "class Mute(Exception):\n    def __str__(self): raise SystemExit\nraise Mute",
    "hook": "import os\nfrom harness.api import hookimpl\n@hookimpl\ndef harness_methods(): os._exit(0)",
    "endless": "from harness.api import hookimpl\n@hookimpl\ndef harness_methods():\n    while True: yield None",
    "leave": "import os; os._exit(0)",
    "abort": "import os; os.abort()",
    "fork": "import os\nif os.fork() == 0:\n    import time\n    time.sleep(3)\n    os._exit(1)\nos._exit(3)",
}
CHANGES = """
import os, signal, sys
os.chdir("/")
os.environ.clear()
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
sys.path.clear()
sys.stdout.close()
sys.stderr.close()
os.close(0); os.close(1); os.close(2)
signal.alarm(1)
""" + METHOD.format(name="changes")


@pytest.mark.parametrize("deed", DEEDS)
def test_what_a_plugin_raises_on_import_costs_itself(tmp_path, deed):
    done = harness("plugins", "--json", path=[site(tmp_path, "bad", DEEDS[deed])])
    assert done.returncode == 0, done.stderr
    found = {item["name"]: item for item in json.loads(done.stdout)}
    assert found["bad"]["state"] == "broken"
    assert 10 < len(found["bad"]["message"]) < 400
    assert found["baseline"]["state"] == "loaded"


TRIED = """
import sys, time
from harness import faults
print([faults.tried(lambda: time.sleep(60), limit_s=0.3), faults.tried(lambda: None), faults.tried(sys.exit)])
"""


def test_a_plugin_whose_import_never_ends_costs_itself():
    """In a process of its own: one with threads is not copied, and other tests may have left some."""
    done = subprocess.run([sys.executable, "-c", TRIED], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "['did not come to an end within 0.3 s', '', '']"  # what is raised is told later


def test_what_a_hook_raises_keeps_what_it_gave_before(tmp_path, monkeypatch):
    source = METHOD.format(name="half") + "    raise KeyboardInterrupt\n"
    monkeypatch.syspath_prepend(str(site(tmp_path, "half", source)))
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as in a builder: no Ctrl-C comes from a user there
    try:
        registry = load_registry(only={"half"})
    finally:
        signal.signal(signal.SIGINT, before)
    assert "half" in registry.methods
    assert ["KeyboardInterrupt" in problem.message for problem in registry.problems] == [True]


def test_what_a_plugin_changes_of_the_process_is_put_back(tmp_path):
    code = (
        "import os, signal, sys\n"
        "from harness.plugins import load_registry\n"
        "state = lambda: (os.getcwd(), dict(os.environ), signal.getsignal(2), signal.getsignal(15), list(sys.path))\n"
        "before = state()\n"
        "registry = load_registry(only={'changes'})\n"
        "print('changes' in registry.methods, state() == before, flush=True)\n"
        "os.write(1, b'one '); os.write(2, b'two'); print('three', file=sys.stderr)\n"
    )
    path = [str(site(tmp_path, "changes", CHANGES)), os.environ.get("PYTHONPATH", "")]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=env, cwd=tmp_path, timeout=60, check=False
    )
    assert (done.stdout, done.stderr) == ("True True\none ", "twothree\n")


# -- a name that is offered twice


@pytest.fixture
def thief(tmp_path):
    """A third party's method by the name of a built-in one, in a plugin that sorts before all built-in ones."""
    return site(tmp_path, "aaa", METHOD.format(name="int8"))


def test_a_name_that_is_offered_twice_is_refused_for_both(thief, monkeypatch):
    monkeypatch.syspath_prepend(str(thief))
    registry = load_registry()
    assert "int8" not in registry.methods
    with pytest.raises(PluginError) as error:
        registry.find("method", "int8")
    assert "compression-harness (quantization)" in error.value.message
    assert "plug-aaa (aaa)" in error.value.message
    assert "-p int8=quantization" in error.value.hint
    assert {problem.plugin for problem in registry.problems if "'int8'" in problem.message} == {"aaa", "quantization"}


@pytest.mark.parametrize("plugin", ["quantization", "aaa"])
def test_the_user_chooses(thief, monkeypatch, plugin):
    monkeypatch.syspath_prepend(str(thief))
    registry = load_registry(choose={"int8": plugin})
    assert registry.methods["int8"].plugin == plugin
    assert registry.problems == ()
    offers = {info.name: info.offers.get("method", ()) for info in registry.plugins}
    assert ("int8" in offers["aaa"], "int8" in offers["quantization"]) == (plugin == "aaa", plugin != "aaa")


def test_what_nobody_offers_cannot_be_chosen(thief, monkeypatch):
    monkeypatch.syspath_prepend(str(thief))
    with pytest.raises(PlanError, match="offers nothing that is called 'int8'") as error:
        load_registry(choose={"int8": "baseline"})
    assert "aaa and quantization offer it" in error.value.hint


@pytest.mark.parametrize("methods", [("--methods", "int8"), (), ("--methods", "baseline,int8")])
def test_the_bench_refuses_a_contested_name(thief, methods):
    done = harness("bench", "--dry-run", "--targets", "null", *methods, path=[thief])
    assert done.returncode == 3
    assert "error: method 'int8' is offered by" in done.stderr
    assert "hint: harness -p int8=quantization" in done.stderr
    again = harness("-p", "int8=quantization", "bench", "--dry-run", "--targets", "null", *methods, path=[thief])
    assert again.returncode == 0, again.stderr


def test_the_bench_goes_on_where_the_contested_name_does_not_matter(thief):
    done = harness("bench", "--dry-run", "--targets", "null", "--methods", "baseline", path=[thief])
    assert done.returncode == 0, done.stderr


def test_a_contested_name_is_shown_and_can_be_chosen_by_the_environment(thief):
    listed = harness("plugins", path=[thief]).stdout
    assert "offered by" in listed
    found = {item["name"]: item for item in json.loads(harness("plugins", "--json", path=[thief]).stdout)}
    assert "int8" not in found["quantization"]["offers"]["method"]
    assert "none is used until you choose" in found["quantization"]["message"]
    chosen = json.loads(harness("methods", "int8", "--json", path=[thief], HARNESS_CHOOSE="int8=quantization").stdout)
    assert chosen["plugin"] == "quantization"
    assert "method 'int8' is offered by" in harness("methods", path=[thief]).stderr


def test_a_contested_anchor_is_refused(tmp_path):
    path = [site(tmp_path, "aaa", METHOD.format(name="baseline"))]
    done = harness("bench", "--dry-run", "--targets", "null", "--methods", "int8", path=path)
    assert (done.returncode, "method 'baseline' is offered by" in done.stderr) == (3, True)


EXPORTER = """
from harness.api import ExporterSpec, OracleSpec, hookimpl

@hookimpl
def harness_exporters():
    yield ExporterSpec(name="aab", summary="mine", consumes="torch", produces="onnx", export=print)

@hookimpl
def harness_oracles():
    yield OracleSpec(name="aab", summary="mine", consumes="torch", open=print)
"""


def test_what_serves_without_being_named_is_the_built_in_one(tmp_path, monkeypatch):
    from harness.plan.checks import built_in_first, export_path

    monkeypatch.syspath_prepend(str(site(tmp_path, "aab", EXPORTER)))
    registry = load_registry()
    assert {"aab"} <= set(registry.exporters) & set(registry.oracles)
    assert export_path(registry.exporters, "torch", {"onnx"}) == ("onnx",)
    assert built_in_first(registry.oracles)[-1][0] == "aab"


def test_a_built_in_plugins_name_is_refused_for_both(tmp_path):
    path = [site(tmp_path, "quantization", METHOD.format(name="mine"))]
    done = harness("bench", "--dry-run", "--targets", "null", path=path)
    assert done.returncode == 3
    assert "entry point 'quantization' is declared by compression-harness and by plug-quantization" in done.stderr
    done = harness("-p", "no:quantization", "bench", "--dry-run", "--targets", "null", path=path)
    assert done.returncode == 0, done.stderr


THREAD = """
import threading, time
threading.Thread(target=time.sleep, args=(600,)).start()
""" + METHOD.format(name="thread")


def test_a_thread_that_a_plugin_leaves_does_not_keep_the_command(tmp_path):
    done = harness("methods", "--json", path=[site(tmp_path, "thread", THREAD)])
    assert "thread" in {item["name"] for item in json.loads(done.stdout)}


WANTS = METHOD.format(name="wants").replace("compress=", "wants=lambda params: 1 / 0, compress=")


def test_a_specs_own_function_that_raises_is_the_plugins_fault(tmp_path):
    path = [site(tmp_path, "wants", WANTS)]
    done = harness("bench", "--dry-run", "--targets", "null", "--methods", "wants", path=path)
    assert done.returncode == 3
    assert "'wants' of wants raised ZeroDivisionError: division by zero; that is the fault of plugin" in done.stderr
    assert "-p no:wants leaves it out" in done.stderr
    assert json.loads(harness("methods", "--json", path=path).stdout)


def test_a_summary_in_colours_is_refused(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(site(tmp_path, "red", METHOD.format(name="red").replace("mine", "\x1b[31m"))))
    registry = load_registry(only={"red"})
    assert "red" not in registry.methods
    assert "control characters" in registry.problems[0].message


@pytest.mark.slow
def test_the_doctor_names_a_contested_name(thief):
    done = harness("doctor", path=[thief])
    assert "plugin problem: aaa (plug-aaa): method 'int8' is offered by" in done.stdout


@pytest.mark.parametrize("given", ["int8", "no:", "=x", "int8="])
def test_what_minus_p_does_not_take_is_told(given):
    done = harness("-p", given, "plugins", path=[])
    assert (done.returncode, "is not no:NAME or NAME=PLUGIN" in done.stderr) == (2, True)
