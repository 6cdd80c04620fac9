"""The vector extensions of this CPU that decide how fast compressed models run."""

from __future__ import annotations

import platform
from pathlib import Path

# As the kernel names them -> as capabilities name them.
_NAMES = {
    "avx2": "avx2", "avx512f": "avx512", "avx512_vnni": "avx512-vnni", "avx_vnni": "avx-vnni",
    "avx512_bf16": "avx512-bf16", "avx512_fp16": "avx512-fp16", "amx_int8": "amx-int8", "amx_bf16": "amx-bf16",
    "amx_fp16": "amx-fp16", "asimddp": "dotprod", "i8mm": "i8mm", "asimdhp": "fp16", "bf16": "bf16", "sve": "sve",
    "sve2": "sve2", "sme": "sme",
}  # fmt: skip
_CPUINFO = Path("/proc/cpuinfo")


def cpu_features(cpuinfo: Path = _CPUINFO) -> tuple[str, ...]:
    """Return what the kernel lists, by the names above; empty where there is no such list.

    Args:
        cpuinfo: A file as Linux writes it: a line of "flags" on x86, of "Features" on ARM.
    """
    try:
        text = cpuinfo.read_text()
    except OSError:
        return ()
    flags = next((line.split() for line in text.splitlines() if line.startswith(("flags", "Features"))), [])
    return tuple(name for flag, name in _NAMES.items() if flag in flags)


def int8_dot_product(features: tuple[str, ...]) -> str:
    """Name the fastest instruction that multiplies and adds int8, or say that there is none."""
    for feature, name in (
        ("amx-int8", "AMX int8"), ("avx512-vnni", "AVX-512 VNNI"), ("avx-vnni", "AVX-VNNI"), ("i8mm", "Arm i8mm"),
        ("dotprod", "Arm dot product"),
    ):  # fmt: skip
        if feature in features:
            return name
    kind = "AVX2 only" if "avx2" in features else platform.machine() or "this CPU"
    return f"no int8 dot product ({kind})"
