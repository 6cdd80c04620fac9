"""Machine code that does nothing but multiply and add, or read: what no runtime on this CPU can beat.

A matrix product of a library is no upper bound (a convolution of another library may be faster); the CPU's own rate
of multiply-add instructions is. The instructions are put together here, byte by byte, so that no compiler and no
package is needed, and called through ctypes, which lets other threads run meanwhile. Each works on registers that hold
zeros: nothing that data does to the clock makes a real model faster than this.
"""

from __future__ import annotations

import ctypes
import mmap
import platform
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass

REGISTERS = 12  # accumulators: more than latency x throughput of any multiply-add unit
TWO_VECTORS = 128.0  # most that two units of vectors do in a cycle: int8 in 512 bits; more is a matrix extension's
CHAIN = 16  # dependent multiplications in one turn of the clock's loop
IMUL_CYCLES = 3  # latency of a 64-bit imul on every x86-64 core since Nehalem and Zen
READ_STEP = 512  # bytes that one turn of the reading loop takes

_TURN = bytes.fromhex("48ffcf")  # dec rdi
_END = bytes.fromhex("c5f877c3")  # vzeroupper; ret
_READ = bytes.fromhex(  # 16 times vmovups ymm, [rdi + 32 n]; add rdi, 512; sub rsi, 512; jnz back
    "c5fc1007c5fc104f20c5fc105740c5fc105f60c5fc10a780000000c5fc10afa0000000c5fc10b7c0000000c5fc10bfe0000000"
    "c57c108700010000c57c108f20010000c57c109740010000c57c109f60010000c57c10a780010000c57c10afa0010000"
    "c57c10b7c0010000c57c10bfe00100004881c7000200004881ee000200000f8579ffffff"
)


@dataclass(frozen=True)
class Kernel:
    """One multiply-add instruction on registers.

    Attributes:
        arithmetic: The precision whose ceiling it is.
        flag: CPU flag without which it must not be run.
        low, high: Prefix of the instruction for registers 0 to 7, and for 8 and above.
        opcode: Its opcode byte.
        macs: Multiply-accumulates of one instruction.
    """

    name: str
    arithmetic: str
    flag: str
    low: str
    high: str
    opcode: int
    macs: int


KERNELS = (
    Kernel("vfmadd231ps zmm", "float32", "avx512f", "62d21d48", "62521d48", 0xB8, 16),
    Kernel("vfmadd231ps ymm", "float32", "fma", "c4c21d", "c4421d", 0xB8, 8),
    Kernel("vdpbf16ps zmm", "bfloat16", "avx512_bf16", "62d21e48", "62521e48", 0x52, 32),
    Kernel("vpdpbusd zmm", "int8", "avx512_vnni", "62d21d48", "62521d48", 0x50, 64),
    Kernel("vpmaddubsw ymm", "int8", "avx2", "c4c21d", "c4421d", 0x04, 32),
)


def usable(flags: Collection[str]) -> tuple[Kernel, ...]:
    """Return the kernels that a CPU with these flags runs; none on another machine than x86-64."""
    if platform.machine().lower() not in {"x86_64", "amd64"} or sys.platform == "win32":
        return ()
    return tuple(kernel for kernel in KERNELS if kernel.flag in flags)


def macs_per_cycle(flags: Collection[str]) -> Mapping[str, float]:
    """Return the most multiply-accumulates of one core in a cycle by precision: two units of the widest vectors.

    Matrix extensions have rates of their own: a tile of 16 x 16 x 64 int8 takes 16 cycles (Intel's AMX).
    """
    found: dict[str, float] = {}
    for kernel in usable(flags):
        found[kernel.arithmetic] = max(found.get(kernel.arithmetic, 0.0), 2.0 * kernel.macs)
    if "float32" in found:
        found["float16"] = found["float32"] * (2 if "avx512_fp16" in flags else 1)
        found.setdefault("bfloat16", found["float32"])
    for flag, arithmetic, rate in (("amx_int8", "int8", 1024.0), ("amx_bf16", "bfloat16", 512.0)):
        if flag in flags and found:
            found[arithmetic] = max(found.get(arithmetic, 0.0), rate)
    return found


class Code:
    """A page of executable memory and the function in it.

    Raises:
        OSError: The system gives no memory that may be executed.
    """

    def __init__(self, raw: bytes, *arguments: type) -> None:
        rights = mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
        self._page = mmap.mmap(-1, mmap.PAGESIZE, prot=rights)
        self._page.write(raw)
        address = ctypes.addressof(ctypes.c_char.from_buffer(self._page))
        self._function = ctypes.CFUNCTYPE(None, *arguments)(address)

    def call(self, *values: object) -> None:
        """Run it; other threads of Python run meanwhile."""
        self._function(*values)


def multiply_add(kernel: Kernel) -> Code:
    """Return a function of a count of turns, each of ``REGISTERS`` instructions."""
    zeros = b"".join(_xor(number) for number in range(REGISTERS + 2))
    sides = (bytes.fromhex(kernel.low), bytes.fromhex(kernel.high))
    body = b"".join(sides[number > 7] + bytes((kernel.opcode, 0xC5 | (number & 7) << 3)) for number in range(REGISTERS))
    return Code(zeros + _loop(body) + _END, ctypes.c_uint64)


def clock() -> Code:
    """Return a function of a count of turns, each of ``CHAIN`` dependent imul: it takes a known number of cycles."""
    return Code(bytes.fromhex("b803000000") + _loop(bytes.fromhex("480fafc0") * CHAIN) + b"\xc3", ctypes.c_uint64)


def reader() -> Code:
    """Return a function of an address and a number of bytes, a multiple of ``READ_STEP``, that reads them once."""
    return Code(_READ + _END, ctypes.c_void_p, ctypes.c_uint64)


def _xor(number: int) -> bytes:
    """Return vpxor xmm_n, xmm_n, xmm_n, which clears the whole vector register."""
    if number < 8:
        return bytes((0xC5, 0xF9 - 8 * number, 0xEF, 0xC0 | 9 * number))
    return bytes((0xC4, 0x41, 0x39 - 8 * (number - 8), 0xEF, 0xC0 | 9 * (number & 7)))


def _loop(body: bytes) -> bytes:
    jump = len(body) + len(_TURN) + 2
    return body + _TURN + bytes((0x75, 256 - jump))
