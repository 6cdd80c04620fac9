"""LiteRT's aarch64 kernels, under emulation where this host has another CPU: outputs that are checked, no latency."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.api import Artifact, Availability, HarnessError, Options, Placement, TensorSpec
from harness_tflite import flatbuffer
from harness_tflite.placement import Graph, placements
from harness_tflite.profiling import as_run
from harness_tflite.session import TfliteSession

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from harness_tflite.params import Params

    Arrays = Mapping[str, NDArray[Any]]

CHILD = Path(__file__).with_name("aarch64_child.py")
HINT = "'python -m harness_tflite.aarch64_setup FOLDER' makes one from packages, without root"
EXIT_WAIT_S = 20.0
# Of the largest output. Sums in another order differ by 1e-6; an activation that rounds to the other side of a
# quantization step moves an output by a step, of which int8 has 255.
TOLERANCE = {"float": 1e-4, "integer": 0.05}


class Child:
    """A LiteRT interpreter in an aarch64 Python.

    Args:
        python: The interpreter, or a script that starts one.
        model: The file.
        options: Threads, batch, and whether XNNPACK takes part.

    Raises:
        HarnessError: It cannot be started, is not an aarch64 one, or fails.
    """

    def __init__(self, python: str, model: Path, options: Mapping[str, Any]) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  closed by close()
        asked = json.dumps({**options, "model": str(model)})
        try:
            self._process = subprocess.Popen(
                [python, str(CHILD), asked], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log
            )
        except OSError as error:
            self._log.close()
            raise HarnessError(f"the aarch64 Python {python} cannot be started: {error.strerror}", hint=HINT) from None
        try:
            self.about = self._greeted(python)
        except BaseException:
            self.close()
            raise

    def run(self, arrays: Mapping[int, NDArray[Any]], wanted: list[int]) -> list[NDArray[Any]]:
        """Set tensors by index, run, and return others by index."""
        import numpy as np

        listed = [
            {"index": index, "dtype": array.dtype.name, "shape": list(array.shape), "bytes": array.nbytes}
            for index, array in arrays.items()
        ]
        sent = b"".join(np.ascontiguousarray(array).tobytes() for array in arrays.values())
        try:
            self._stream("stdin").write(json.dumps({"set": listed, "get": wanted}).encode() + b"\n" + sent)
            self._stream("stdin").flush()
        except OSError:
            raise self._died() from None
        got = self._answer()["got"]
        return [np.frombuffer(self._read(item["bytes"]), item["dtype"]).reshape(item["shape"]) for item in got]

    def close(self) -> None:
        """End the process."""
        self._stream("stdin").close()
        try:
            self._process.wait(EXIT_WAIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._stream("stdout").close()
        self._log.close()

    def _greeted(self, python: str) -> dict[str, Any]:
        about = self._answer()
        if about["machine"] != "aarch64":
            raise HarnessError(f"{python} is a Python for {about['machine']}, not aarch64", hint=HINT)
        return about

    def _stream(self, name: str) -> Any:
        return getattr(self._process, name)

    def _answer(self) -> dict[str, Any]:
        line = self._stream("stdout").readline()
        if not line:
            raise self._died()
        try:
            answer: dict[str, Any] = json.loads(line)
        except ValueError:
            raise HarnessError(f"the aarch64 Python answered {line[:60]!r}", hint=HINT) from None
        return answer

    def _read(self, size: int) -> bytes:
        found: bytes = self._stream("stdout").read(size)
        if len(found) < size:
            raise self._died()
        return found

    def _died(self) -> HarnessError:
        code = self._process.wait()
        self._log.seek(0)
        said = [line for line in self._log.read().decode(errors="replace").splitlines() if line.strip()]
        last = said[-1] if said else "nothing was said"
        old = "; the QEMU of Debian 12, 7.2, crashes on LiteRT, that of Debian 13 does not" if code < 0 else ""
        return HarnessError(f"LiteRT in the aarch64 Python ended with status {code}: {last}{old}", hint=HINT)


class Aarch64Session:
    """A file on both kernels: what aarch64 computes is what ``run`` returns, and it is held against this host's.

    Raises:
        HarnessError: The aarch64 Python cannot run it.
    """

    def __init__(self, artifact: Artifact, params: Params, options: Options) -> None:
        self._here = TfliteSession(artifact, params, options)
        asked = {"threads": options.threads, "batch": options.batch, "xnnpack": params.xnnpack}
        self._child = Child(params.arm64, artifact.path, asked)
        self._path, self._python, self._xnnpack = artifact.path, params.arm64, params.xnnpack
        self._limit = TOLERANCE["float" if "float" in artifact.realised else "integer"]
        self._batch, self._items, self._same = options.batch, 0, True
        self._worst = 0.0

    @property
    def inputs(self) -> Mapping[str, TensorSpec]:
        """Inputs by name, as on this host."""
        return self._here.inputs

    @property
    def outputs(self) -> Mapping[str, TensorSpec]:
        """Outputs by name."""
        return self._here.outputs

    def run(self, inputs: Arrays) -> Arrays:
        """Run on both; return what aarch64 gave.

        Raises:
            HarnessError: The outputs differ by more than rounding.
        """
        here = self._here.run(inputs)
        indices = self._here.indices
        sent = {indices[name]: inputs[name].astype(spec.dtype, copy=False) for name, spec in self.inputs.items()}
        arrays = self._child.run(sent, [indices[name] for name in here])
        # Behind XNNPACK's sparse kernels LiteRT 2.3 reports the shape of an output in another order of dimensions.
        found = {name: array.reshape(here[name].shape) for name, array in zip(here, arrays, strict=True)}
        self._items += self._batch
        for name, expected in here.items():
            self._compare(name, expected, found[name])
        return found

    def _compare(self, name: str, expected: NDArray[Any], found: NDArray[Any]) -> None:
        import numpy as np

        if np.array_equal(expected, found):
            return
        self._same = False
        scale = max(float(np.abs(expected).max(initial=0.0)), 1e-6)
        error = float(np.abs(found.astype(np.float64) - expected).max(initial=0.0)) / scale
        self._worst = max(self._worst, error)
        if not error <= self._limit:  # also catches NaN
            raise HarnessError(
                f"output {name!r} on aarch64 is off by {error:.2g} of its largest value; {self._limit:g} is rounding"
            )

    def placements(self) -> tuple[Placement, ...]:
        """Return one entry per kernel that ran on aarch64, as LiteRT's profiler names it; emulated time is no time."""
        about = self._child.about
        tensors = {item["index"]: item for item in about["tensors"]}
        listed = placements(Graph(about["nodes"], tensors, frozenset(about["inputs"])), batch=self._batch)
        found = as_run(self._path, listed, self._python) if self._xnnpack else listed
        return tuple(dataclasses.replace(item, time_share=None) for item in found)

    def effective(self) -> Mapping[str, str]:
        """Return which runtime ran, and how far its outputs are from this host's."""
        about = self._child.about
        return {
            "device": f"{about['machine']}, LiteRT {about['version']}",
            "clock": "none: simulated, no latency",
            "remark": self._remark(),
        }

    def _remark(self) -> str:
        where = f"{self._child.about['machine']} kernels of LiteRT {self._child.about['version']}"
        if not self._items:
            return f"{where}: nothing was compared"
        same = "bit for bit those of this host" if self._same else f"within {self._worst:.1g} of this host's"
        return f"{where}: outputs {same} over {self._items} items"

    def close(self) -> None:
        """End both."""
        self._child.close()
        self._here.close()


def probe(python: str) -> Availability:
    """Add two vectors in the aarch64 Python; say what is missing otherwise."""
    import numpy as np

    if shutil.which(python) is None:
        return Availability(available=False, reason=f"arm64={python} is not a program that can be run", hint=HINT)
    with tempfile.TemporaryDirectory(prefix="harness-") as folder:
        model = Path(folder) / "one.tflite"
        model.write_bytes(flatbuffer.one_op_model())
        try:
            with contextlib.closing(Child(python, model, {"threads": 1, "batch": 1, "xnnpack": True})) as child:
                (total,) = child.run(dict.fromkeys((0, 1), np.arange(4, dtype=np.float32).reshape(1, 4)), [2])
        except HarnessError as error:
            return Availability(available=False, reason=error.message, hint=error.hint or HINT)
    if total.reshape(-1).tolist() != [0.0, 2.0, 4.0, 6.0]:
        return Availability(available=False, reason=f"LiteRT added (0, 1, 2, 3) to itself and got {total}", hint=HINT)
    return Availability(available=True, runtime="LiteRT", version=f"{child.about['version']} aarch64")
