"""LiteRT on an Android device: the file and LiteRT's benchmark tool are pushed, run there, and its outputs pulled."""

from __future__ import annotations

import contextlib
import hashlib
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.api import Artifact, Availability, HarnessError, Options, TensorSpec
from harness_tflite import flatbuffer
from harness_tflite.adb import FOLDER, Phone
from harness_tflite.session import TfliteSession

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from harness_tflite.params import Params

    Arrays = Mapping[str, NDArray[Any]]

WARM_UP_RUNS = 2  # of each start of the tool: the first inference allocates, the second runs as all others
MOST_SECONDS = 120.0
TOOL_HINT = "tool=FILE names LiteRT's benchmark_model for the device's ABI; docs/mobile.md says where it comes from"
_TIMINGS = re.compile(r"Inference \(avg\): ([0-9.eE+-]+)")
_DELEGATED = re.compile(r"(Replacing \d+ out of \d+ node\(s\) with delegate[^\n]*|Explicitly applied [^\n]*)")
_MIB = re.compile(r"Overall peak memory footprint \(MB\) via periodic monitoring: ([0-9.]+)")


class AndroidSession:
    """A file on a device.

    Raises:
        HarnessError: The device is not there, or the tool fails on it.
    """

    def __init__(self, artifact: Artifact, params: Params, options: Options) -> None:
        self._inputs, self._outputs, self._order = _signature(artifact, params, options)
        self._phone = Phone(params.android)
        self._phone.require()
        self._scratch = tempfile.TemporaryDirectory(prefix="harness-")
        self._settings = (f"--num_threads={options.threads}", f"--use_xnnpack={str(params.xnnpack).lower()}")
        self._threads = options.threads
        self._tool = install(self._phone, params.tool)
        self._model = _place(self._phone, artifact.path, "model", ".tflite")
        self._pushed: dict[str, str] = {}
        self._said = ""

    @property
    def inputs(self) -> Mapping[str, TensorSpec]:
        """Inputs by name, of fixed shape."""
        return self._inputs

    @property
    def outputs(self) -> Mapping[str, TensorSpec]:
        """Outputs by name."""
        return self._outputs

    def run(self, inputs: Arrays) -> Arrays:
        """Push the inputs, run once, and pull the outputs."""
        result, local = f"{FOLDER}/output", Path(self._scratch.name) / "output"
        self._bench(inputs, "--num_runs=1", "--warmup_runs=0", "--warmup_min_secs=0", f"--output_filepath={result}")
        self._phone.pull(result, local)
        return self._decode(local.read_bytes())

    def clocked_ns(self, inputs: Arrays, runs: int) -> int:
        """Let the tool run some times, and return its mean time of a run in nanoseconds."""
        said = self._bench(inputs, f"--num_runs={runs}", f"--warmup_runs={WARM_UP_RUNS}", "--warmup_min_secs=0")
        return mean_ns(said)

    def effective(self) -> Mapping[str, str]:
        """Return the threads that were asked for, and what the tool says of delegates and memory."""
        delegated, peak = _DELEGATED.search(self._said), _MIB.search(self._said)
        return {
            "threads": f"{self._threads} (asked of the tool)",
            "device": self._phone.serial,
            "clock": "the device's",
            "delegates": delegated[1].strip() if delegated else "none reported",
            "device_peak_memory": f"{peak[1]} MB, by the tool" if peak else "not reported",
        }

    def close(self) -> None:
        """Remove the inputs and outputs; the tool and the model stay for the next session."""
        with contextlib.suppress(HarnessError):
            self._phone.shell("rm", "-f", *self._pushed.values(), f"{FOLDER}/output")
        self._scratch.cleanup()

    def _bench(self, inputs: Arrays, *flags: str) -> str:
        names = list(self._order[0])
        shapes = ":".join(",".join(str(size) for size in self._inputs[name].shape) for name in names)
        files = [self._push(inputs[name].astype(self._inputs[name].dtype, copy=False)) for name in names]
        # The tool goes by place; a tensor's own name may hold what separates its lists.
        layers = [f"input{place}" for place in range(len(names))]
        said = self._phone.shell(
            self._tool,
            f"--graph={self._model}",
            *self._settings,
            f"--input_layer={','.join(layers)}",
            f"--input_layer_shape={shapes}",
            f"--input_layer_value_files={','.join(f'{a}:{b}' for a, b in zip(layers, files, strict=True))}",
            "--min_secs=0",
            f"--max_secs={MOST_SECONDS:g}",
            "--report_peak_memory_footprint=true",
            *flags,
        )
        self._said = said
        return said

    def _push(self, array: NDArray[Any]) -> str:
        raw = array.tobytes()
        key = hashlib.sha256(raw).hexdigest()[:16]
        if key not in self._pushed:
            local = Path(self._scratch.name) / f"input-{key}"
            local.write_bytes(raw)
            self._phone.push(local, f"{FOLDER}/{local.name}")
            local.unlink()
            self._pushed[key] = f"{FOLDER}/{local.name}"
        return self._pushed[key]

    def _decode(self, raw: bytes) -> Arrays:
        """Cut the tool's output file, which is one output behind the other in the file's order."""
        import numpy as np

        found, start = {}, 0
        for name in self._order[1]:
            spec = self._outputs[name]
            shape = [int(size or 1) for size in spec.shape]
            size = int(np.prod(shape)) * np.dtype(spec.dtype).itemsize
            found[name] = np.frombuffer(raw[start : start + size], spec.dtype).reshape(shape)
            start += size
        if start != len(raw):
            raise HarnessError(f"the tool wrote {len(raw)} bytes of outputs, the model has {start}")
        return {name: found[name] for name in self._outputs}


def mean_ns(said: str) -> int:
    """Return the mean time of a run, in nanoseconds, that the tool printed in microseconds.

    Raises:
        HarnessError: It printed none.
    """
    found = _TIMINGS.search(said)
    if found is None:
        last = (said.strip().splitlines() or ["nothing"])[-1]
        raise HarnessError(f"LiteRT's benchmark tool printed no timings; its last line: {last}")
    return round(float(found[1]) * 1000)


def _signature(
    artifact: Artifact, params: Params, options: Options
) -> tuple[Mapping[str, TensorSpec], Mapping[str, TensorSpec], tuple[list[str], list[str]]]:
    """Read inputs and outputs here, in the batch of the options, with their names in the file's order."""
    here = TfliteSession(artifact, params, options)
    try:
        indices = here.indices
        return here.inputs, here.outputs, here.in_order(indices)
    finally:
        here.close()


def install(phone: Phone, tool: str) -> str:
    """Put the tool on the device, unless it is there, and return its place.

    Raises:
        HarnessError: No file is named, or it is not there.
    """
    if not tool or not Path(tool).is_file():
        raise HarnessError(f"tool={tool or '(none)'} is no file here", hint=TOOL_HINT)
    phone.shell("mkdir", "-p", FOLDER)
    path = _place(phone, Path(tool), "benchmark_model", "")
    phone.shell("chmod", "755", path)
    return path


def _place(phone: Phone, file: Path, name: str, suffix: str) -> str:
    """Push a file under a name with its hash, unless the device has it."""
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    path = f"{FOLDER}/{name}-{digest[:16]}{suffix}"
    if not phone.holds(path):
        phone.push(file, f"{path}.part")  # a push that breaks off leaves no file that looks whole
        phone.shell("mv", f"{path}.part", path)
    return path


def probe(params: Params) -> Availability:
    """Run a one-operator model on the device; say what is missing otherwise."""
    try:
        phone = Phone(params.android)
        phone.require()
        device = phone.properties()
        tool = install(phone, params.tool)
        with tempfile.TemporaryDirectory(prefix="harness-") as folder:
            model = Path(folder) / "one.tflite"
            model.write_bytes(flatbuffer.one_op_model())
            said = phone.shell(tool, f"--graph={_place(phone, model, 'model', '.tflite')}", "--num_runs=1")
        mean_ns(said)
    except HarnessError as error:
        return Availability(available=False, reason=error.message, hint=error.hint or "")
    version = f"benchmark_model {Path(tool).name.rpartition('-')[2]}"
    return Availability(available=True, runtime="LiteRT", version=version, device=device)
