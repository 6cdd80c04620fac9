"""A third-party plugin that misbehaves on request, installed beside the toy plugin of the build tests."""

from __future__ import annotations

from pathlib import Path

from plugin_factory import make_plugin

SOURCE = """
from __future__ import annotations
import os, shutil, signal, subprocess, sys, threading, time
from dataclasses import dataclass, replace
from pathlib import Path
from harness.api import MethodSpec, Model, Precision, Unsupported, hookimpl, param


@dataclass(frozen=True)
class Params:
    deed: str = param("none", "what to do")


def zeroed(path, job):
    import numpy as np
    np.save(job.out / "model.npy", np.load(path) * 0.5)
    return job.out / "model.npy"


def overwrite(path):
    path.chmod(0o644)
    path.write_bytes(bytes(path.stat().st_size))


def cache_of(job):
    return Path(job.data.split("calibration").inputs["x"].filename).parents[3]


def entries(job):
    return [path for path in cache_of(job).glob("??/*/**/*") if path.is_file() and path.name != "result.json"]


def delete_input(model, job):
    path = zeroed(model.path, job)
    model.path.unlink()
    return replace(model, path=path)


def move_input(model, job):
    shutil.move(model.path, job.out / "model.npy")
    return replace(model, path=job.out / "model.npy")


def overwrite_input(model, job):
    path = zeroed(model.path, job)
    overwrite(model.path)
    overwrite(job.reference.path)
    return replace(model, path=path)


def return_overwritten(model, job):
    overwrite(model.path)
    return model


def wreck_cache(model, job):
    path = zeroed(model.path, job)
    for item in entries(job):
        overwrite(item)
    return replace(model, path=path)


def delete_cache(model, job):
    path = zeroed(model.path, job)
    for folder in cache_of(job).glob("??/*"):
        shutil.rmtree(folder)
    return replace(model, path=path)


def add_to_cache(model, job):
    for folder in cache_of(job).glob("??/*"):
        (folder / "stray").write_text("mine")
    return replace(model, path=zeroed(model.path, job))


def delete_root(model, job):
    path = zeroed(model.path, job)
    shutil.rmtree(cache_of(job))
    return replace(model, path=path)


class Mute(Exception):
    def __str__(self):
        raise SystemExit(1)


def wreck_others(model, job):
    path = zeroed(model.path, job)
    for _again in range(60):
        for folder in cache_of(job).glob("tmp/*"):
            if folder.is_dir() and folder != job.out:
                shutil.rmtree(folder, ignore_errors=True)
        time.sleep(0.05)
    return replace(model, path=path)


def patch_numpy(model, job):
    import numpy as np
    path = zeroed(model.path, job)
    np.load = np.save = np.abs = lambda *args, **more: 1 / 0
    return replace(model, path=path)


def environment(model, job):
    path = zeroed(model.path, job)
    os.environ.clear()
    os.chdir("/")
    os.umask(0o777)
    sys.path.clear()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.close(1)
    os.close(2)
    sys.stdout.close()
    threading.Thread(target=time.sleep, args=(600,)).start()
    return replace(model, path=path)


def linger(model, job):
    root = cache_of(job)
    code = (
        "import sys, time, pathlib\\n"
        "end = time.monotonic() + 20\\n"
        "while time.monotonic() < end:\\n"
        "    for path in pathlib.Path(sys.argv[1]).glob('??/*/**/*.toyart'):\\n"
        "        path.chmod(0o644); path.write_bytes(b'')\\n"
        "    time.sleep(0.01)\\n"
    )
    subprocess.Popen([sys.executable, "-c", code, str(root)])
    return replace(model, path=zeroed(model.path, job))


def raises(error):
    raise error


def much_memory(model, job):
    import numpy as np
    held = np.ones(1 << 29, np.uint8)
    return replace(model, path=zeroed(model.path, job)) if held.any() else model


def nan(model, job):
    import numpy as np
    weights = np.load(model.path)
    weights[1:3] = np.nan
    np.save(job.out / "model.npy", weights)
    return replace(model, path=job.out / "model.npy")


DEEDS = {
    "none": lambda model, job: replace(model, path=zeroed(model.path, job)),
    "delete-input": delete_input, "move-input": move_input, "overwrite-input": overwrite_input,
    "return-overwritten": return_overwritten, "wreck-cache": wreck_cache, "delete-cache": delete_cache,
    "add-to-cache": add_to_cache, "wreck-others": wreck_others, "patch-numpy": patch_numpy,
    "environment": environment, "linger": linger, "nan": nan, "memory": much_memory,
    "interrupt": lambda model, job: raises(KeyboardInterrupt()),
    "long": lambda model, job: raises(RuntimeError("x" * 200_000)),
    "long-refusal": lambda model, job: raises(Unsupported("no way\\n" + "why " * 50_000)),
    "same": lambda model, job: model,
    "delete-root": delete_root,
    "mute": lambda model, job: raises(Mute()),
    "flags": lambda model, job: replace(model, flags=("x" * 200_000,)),
    "abort": lambda model, job: os.abort(),
    "descriptors": lambda model, job: os.closerange(0, 256),
}


def compress(model, params, job):
    return DEEDS[params.deed](model, job)


@hookimpl
def harness_methods():
    common = {"params": Params, "compress": compress, "consumes": frozenset()}
    return [
        MethodSpec(name="evil", family="other", summary="misbehaves", **common),
        MethodSpec(name="evil-pruning", family="pruning", summary="misbehaves", **common),
        MethodSpec(name="evil-none", family="none", summary="misbehaves", **common),
    ]
"""


def install(folder: Path, monkeypatch) -> None:
    """Put the plugin where this process and its builders import from."""
    monkeypatch.syspath_prepend(str(make_plugin(folder / "hostile", "evil", SOURCE)))
