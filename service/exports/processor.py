"""The processor's instructions, as Linux states them."""

from __future__ import annotations

from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
# Products of 8-bit numbers summed in 32 bits: VNNI and AMX on x86, dot products and matrices on ARM.
_INT8_PRODUCTS = frozenset({"avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"})


def has_int8_products(cpuinfo: Path = _CPUINFO) -> bool:
    """Tell whether the processor multiplies 8-bit numbers fast; False where the system does not state it."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    named = [line.partition(":")[2].split() for line in lines if line.lower().startswith(("flags", "features"))]
    return any(not _INT8_PRODUCTS.isdisjoint(words) for words in named)
