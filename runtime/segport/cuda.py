"""Why CUDA is not usable here: what is installed, what the machine shows, what ONNX Runtime said. Light to import."""

import platform
import re
from contextlib import suppress
from ctypes.util import find_library
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

CUDA = "CUDAExecutionProvider"
INSTALL = "pip install 'segport[cuda]'"
REPLACE = f"pip uninstall -y onnxruntime onnxruntime-gpu, then {INSTALL}"
DEVICES = (Path("/dev/nvidiactl"), Path("/dev/dxg"))  # the second is Windows' GPU inside WSL
DRIVER = Path("/proc/driver/nvidia/version")
DRIVER_LIBRARIES = ("libcuda.so.1", "nvcuda.dll")

_TOO_OLD = re.compile(r"driver version is insufficient|undefined symbol: cu[A-Z]")
_FAILURE = re.compile(r"CUDA failure \d+: ([^;\n]+)")
_NOT_MADE = re.compile(r"with error: (.+)|(Failed to create CUDA[^.]+)")
_LIBRARIES = (
    re.compile(r"error: (\S+\.so[.\d]*): cannot open shared object"),  # ONNX Runtime on Linux names the first
    re.compile(r'which depends on "([^"]+)" which is missing'),  # and so on Windows
    re.compile(r"^Failed to load (?:.*[\\/])?([^\\/\s]+\.(?:dll|so[.\d]*)): ", re.MULTILINE),  # preload_dlls: each
)


@dataclass(frozen=True)
class Diagnosis:
    """What was found, in one line, and what helps."""

    reason: str
    remedy: str


OVERWRITTEN = Diagnosis("onnxruntime and onnxruntime-gpu are both installed and overwrite each other", REPLACE)
TOO_OLD = Diagnosis(
    "the NVIDIA driver is too old for this onnxruntime-gpu",
    "a newer NVIDIA driver, or an onnxruntime-gpu built for an older CUDA",
)
LOOK = "see which GPUs and processes nvidia-smi lists"


def absent(providers: list[str]) -> Diagnosis | None:
    """Return why CUDA need not be tried, or None where only loading tells.

    `providers`: what ONNX Runtime was built with. Absence from it is certain, presence means nothing: the GPU wheel
    names CUDA on machines without a GPU.
    """
    return _without_device() or (None if CUDA in providers else _without_provider())


def diagnose(said: str) -> Diagnosis:
    """Return why loading on CUDA failed. `said`: what ONNX Runtime printed meanwhile, then its exception's text."""
    if len(_packages()) > 1:
        return OVERWRITTEN
    if _TOO_OLD.search(said):
        return TOO_OLD
    if failure := _FAILURE.search(said):
        return Diagnosis(failure[1].strip(), f"{LOOK}, and whether CUDA_VISIBLE_DEVICES hides one")
    if not_made := _NOT_MADE.search(said):
        return _of_libraries(said) or Diagnosis(not_made[1] or not_made[2], INSTALL)
    if "assigned to the default CPU EP" in said:
        return Diagnosis("a part of this model's graph does not run on CUDA", "an export with --precision fp16")
    return Diagnosis(said.strip().splitlines()[-1], LOOK)


def surroundings() -> str:
    """Return which packages of ONNX Runtime and which NVIDIA driver are there, in one line."""
    packages = " and ".join(f"{name} {found}" for name, found in _packages().items()) or "no package of ONNX Runtime"
    driver = _driver()
    return f"installed: {packages}; NVIDIA driver: {driver or 'none found'}"


def _without_device() -> Diagnosis | None:
    if platform.system() == "Windows":
        if find_library("nvcuda"):
            return None
        return Diagnosis("no NVIDIA driver is installed (nvcuda.dll is not found)", "install the NVIDIA driver")
    if any(device.exists() for device in DEVICES):
        return None
    if DRIVER.exists():
        return Diagnosis(
            f"the NVIDIA driver is loaded, but its device {DEVICES[0]} is not here",
            "start the container with its GPUs, as in docker run --gpus all",
        )
    return Diagnosis("no NVIDIA device is present", "a machine with an NVIDIA GPU and its driver")


def _without_provider() -> Diagnosis:
    packages = _packages()
    if len(packages) > 1:
        return OVERWRITTEN
    machine = platform.system(), platform.machine()
    if machine not in {("Linux", "x86_64"), ("Windows", "AMD64")}:  # as the extra's markers in pyproject.toml say
        return Diagnosis(
            f"segport[cuda] brings nothing for {' '.join(machine)}",
            "an onnxruntime-gpu built for this machine in place of onnxruntime",
        )
    if "onnxruntime" in packages:
        return Diagnosis(f"onnxruntime {packages['onnxruntime']} is the package without CUDA", REPLACE)
    return Diagnosis("the installed ONNX Runtime was built without CUDA", REPLACE)


def _of_libraries(said: str) -> Diagnosis | None:
    names = list(dict.fromkeys(name for pattern in _LIBRARIES for name in pattern.findall(said)))
    if not names:
        return None
    reason = f"{', '.join(names)} cannot be loaded"
    if set(names).isdisjoint(DRIVER_LIBRARIES):
        return Diagnosis(reason, INSTALL)
    return Diagnosis(reason, "install the NVIDIA driver; a container needs its GPUs, as in docker run --gpus all")


def _packages() -> dict[str, str]:
    found = {}
    for name in ("onnxruntime", "onnxruntime-gpu"):
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _driver() -> str:
    """Return the loaded NVIDIA driver's version, or an empty text; only Linux says it in a file."""
    try:
        text = DRIVER.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    found = re.search(r"Kernel Module +(?:for \S+ +)?(\d[\d.]*)", text)
    return found[1] if found else "loaded"
