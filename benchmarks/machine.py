"""The machine a benchmark ran on, in one line."""

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from segport.session import usable_cores

PACKAGES = ("torch", "onnxruntime", "onnxruntime-gpu", "openvino", "nncf")
INSTRUCTIONS = ("avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "asimddp", "i8mm")  # for int8 and bf16


def machine() -> str:
    """Return the CPU, the cores this process may use, the instructions that matter, and versions."""
    known = _cpuinfo()
    cpu = known.get("model name") or platform.processor() or platform.machine()
    flags = known.get("flags", known.get("Features", "")).split()
    found = [f"{usable_cores()} cores", *(i for i in INSTRUCTIONS if i in flags), f"Python {platform.python_version()}"]
    return ", ".join([cpu, *found, *_versions()])


def _cpuinfo() -> dict[str, str]:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    pairs = [line.split(":", 1) for line in lines if ":" in line]
    return {name.strip(): value.strip() for name, value in pairs}


def _versions() -> list[str]:
    found = []
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return found
