"""Which device runs, and what is said when CUDA does not: with fakes at the boundary, no machine of ours has a GPU."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from onnxruntime.capi.onnxruntime_pybind11_state import Fail

from helpers import TINY, square, write
from segport import cuda, streams
from segport.cli import main
from segport.cuda import CUDA, diagnose
from segport.errors import DeviceError, ModelError
from segport.onnxruntime_engine import CPU
from segport.segmenter import Segmenter
from segport.session import open_session

NOT_ON_CPU = (
    "[ONNXRuntimeError] : 1 : FAIL : This session contains graph nodes that are assigned to the default CPU EP,"
    " but fallback to CPU EP has been explicitly disabled by the user."
)
NOT_CREATED = (
    "\033[0;93m2026-11-23 14:22:03.92 [W:onnxruntime:Default, onnxruntime_pybind_state.cc:1295"
    " CreateExecutionProviderFactoryInstance] Failed to create CUDAExecutionProvider. Require cuDNN 9.* and CUDA 13.*."
    " Please install all dependencies\033[m\n"
)
# What onnxruntime-gpu 1.31.1 prints on Linux when NVIDIA's libraries are missing
NOT_LOADED = (
    "\033[1;31m2026-11-23 14:22:03.92 [E:onnxruntime:Default, provider_bridge_ort.cc:2458 operator()]"
    " [ONNXRuntimeError] : 1 : FAIL : Failed to load library /venv/onnxruntime/capi/libonnxruntime_providers_cuda.so"
    " with error: {}\n\033[m\n" + NOT_CREATED
)
CANNOT_OPEN = "{}: cannot open shared object file: No such file or directory"
# ... and what its exception says where the driver's libcuda.so.1 is older than the wheel's CUDA
CUDA_FAILURE = (
    "/onnxruntime_src/onnxruntime/core/providers/cuda/cuda_call.cc:154 std::conditional_t<THRW, void,"
    " onnxruntime::common::Status> onnxruntime::CudaCall(ERRTYPE) [with ERRTYPE = cudaError; bool THRW = true]"
    " CUDA failure {} ; GPU=-1 ; hostname=vm ; file=cuda_execution_provider.cc ; line=355 ; expr=cudaSetDevice(0); \n\n"
)
INSTALL = "pip install 'segport[cuda]'"


class OnCuda:
    """A real session on the CPU that says it runs on CUDA; `held`: the slices of every call."""

    def __init__(self, session: Any, options: dict[str, str]) -> None:
        self.session, self.options, self.held = session, options, list[int]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.session, name)

    def get_providers(self) -> list[str]:
        return [CUDA, CPU]

    def get_provider_options(self) -> dict[str, dict[str, str]]:
        return {CUDA: self.options, CPU: {}}

    def run(self, names: list[str], feeds: dict[str, Any]) -> Any:
        self.held.append(len(feeds["pixels"]))
        return self.session.run(names, feeds)


class Machine:
    """A Linux machine with a GPU and onnxruntime-gpu, until a test takes something away."""

    def __init__(self) -> None:
        self.system, self.processor = "Linux", "x86_64"
        self.providers = [CUDA, CPU]
        self.packages = {"onnxruntime-gpu": "1.31.1"}
        self.libraries = {"nvcuda": r"C:\Windows\System32\nvcuda.dll"}  # where it is Windows
        self.there = {"/dev/nvidiactl", "/proc/driver/nvidia/version"}
        self.preloaded, self.printed = 0, ""
        self.error: Exception | None = None
        self.comes_up_on: str | None = None
        self.asked: list[dict[str, Any]] = []
        self.session: OnCuda | None = None

    def version(self, package: str) -> str:
        if package not in self.packages:
            raise PackageNotFoundError(package)
        return self.packages[package]

    def preload(self) -> None:
        self.preloaded += 1
        print("Failed to load libcurand.so.10: libcurand.so.10: cannot open shared object file")

    def load(self, path: str, options: Any, *, providers: Sequence[Any], enable_fallback: bool) -> Any:
        disabled = config_entry(options, "session.disable_cpu_ep_fallback")
        self.asked.append({"providers": providers, "enable_fallback": enable_fallback, "fallback_disabled": disabled})
        if providers == [CPU]:
            return REAL_SESSION(path, options, providers=providers, enable_fallback=enable_fallback)
        os.write(2, self.printed.encode())
        if self.error:
            raise self.error
        real = REAL_SESSION(path, providers=[CPU])
        self.session = OnCuda(real, {k: str(v) for k, v in providers[0][1].items()})
        return real if self.comes_up_on == CPU else self.session


REAL_SESSION = ort.InferenceSession


def config_entry(options: Any, name: str) -> str | None:
    try:
        return str(options.get_session_config_entry(name))
    except RuntimeError:  # it was never set
        return None


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    fake, exists = Machine(), Path.exists
    monkeypatch.setattr(ort, "InferenceSession", fake.load)
    monkeypatch.setattr(ort, "preload_dlls", fake.preload)
    monkeypatch.setattr(ort, "get_available_providers", lambda: fake.providers)
    monkeypatch.setattr(cuda, "version", fake.version)
    monkeypatch.setattr(cuda, "find_library", fake.libraries.get)
    monkeypatch.setattr("platform.system", lambda: fake.system)
    monkeypatch.setattr("platform.machine", lambda: fake.processor)
    on_machine = ("/dev/", "/proc/")
    monkeypatch.setattr(
        Path, "exists", lambda path: str(path) in fake.there if str(path).startswith(on_machine) else exists(path)
    )
    return fake


def refusal(**options: Any) -> str:
    with pytest.raises(DeviceError) as caught:
        open_session(TINY, device="cuda", **options)
    return str(caught.value)


def test_auto_takes_cuda_where_it_works(machine: Machine) -> None:
    opened = open_session(TINY, device="auto", batch=4, threads=2)
    assert (opened.provider, opened.asked, opened.note) == (CUDA, "auto", "")
    assert opened.describe() == "CUDAExecutionProvider, 2 threads, batches of 4"
    assert len(machine.asked) == 1


def test_cuda_is_asked_for_alone_without_fallback_and_without_tf32(machine: Machine) -> None:
    opened = open_session(TINY, device="cuda")
    options = {"cudnn_conv_algo_search": "HEURISTIC", "use_tf32": "0"}
    assert machine.asked == [{"providers": [(CUDA, options)], "enable_fallback": False, "fallback_disabled": "1"}]
    assert opened.facts == {"tf32": False, "cudnn_conv_algo_search": "HEURISTIC"}


@pytest.mark.parametrize(
    ("options", "facts"),
    [
        ({"use_tf32": "1"}, {"tf32": True, "cudnn_conv_algo_search": None}),
        ({}, {"tf32": None, "cudnn_conv_algo_search": None}),
    ],
)
def test_facts_are_what_the_session_says_and_not_what_was_asked(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, options: dict[str, str], facts: dict[str, Any]
) -> None:
    monkeypatch.setattr(OnCuda, "get_provider_options", lambda _: {CUDA: options})
    assert open_session(TINY, device="cuda").facts == facts


def test_the_cpu_is_asked_for_alone_and_no_library_of_nvidia_is_loaded(machine: Machine) -> None:
    opened = open_session(TINY, device="cpu", batch=4)
    assert (opened.provider, opened.note, opened.batch) == (CPU, "", None)
    assert machine.asked == [{"providers": [CPU], "enable_fallback": False, "fallback_disabled": None}]
    assert machine.preloaded == 0


def test_auto_without_a_gpu_tries_nothing_and_says_why(machine: Machine) -> None:
    machine.there.clear()
    opened = open_session(TINY, device="auto", threads=2)
    assert opened.describe() == "CPUExecutionProvider, 2 threads (CUDA is not usable: no NVIDIA device is present)"
    assert machine.preloaded == 0
    assert [asked["providers"] for asked in machine.asked] == [[CPU]]


def broken(machine: Machine) -> str:
    machine.printed, machine.error = NOT_LOADED.format(CANNOT_OPEN.format("libcudnn.so.9")), Fail(NOT_ON_CPU)
    return "libcudnn.so.9, libcurand.so.10 cannot be loaded"


def falls_back(machine: Machine) -> str:
    machine.comes_up_on = CPU
    return "the session came up on CPUExecutionProvider"


@pytest.mark.parametrize("breaks", [broken, falls_back])
def test_a_cuda_that_does_not_work_is_a_note_for_auto_and_an_error_when_forced(machine: Machine, breaks) -> None:
    reason = breaks(machine)
    assert open_session(TINY, device="auto").note == f"CUDA is not usable: {reason}"
    allowed = open_session(TINY, device="cuda", allow_fallback=True)
    assert (allowed.provider, allowed.asked, allowed.note) == (CPU, "cuda", f"CUDA is not usable: {reason}")
    assert f"CUDA is not usable here: {reason} (" in refusal()
    assert refusal().endswith(f"remedy: {INSTALL}; or --device cpu, or --allow-fallback")


def test_nothing_that_onnx_runtime_says_of_cuda_is_printed(machine: Machine, capfd) -> None:
    broken(machine)
    open_session(TINY, device="auto")
    refusal()
    assert capfd.readouterr() == ("", "")


def test_forced_cuda_ends_the_command_before_anything_is_written(machine: Machine, tmp_path: Path, capfd) -> None:
    machine.there.clear()
    write(tmp_path / "in/p_1.png", square())
    assert main([str(tmp_path / "in"), "--model", str(TINY), "--device", "cuda", "--json"]) == 3
    assert capfd.readouterr() == (
        "",
        "error: --device cuda: CUDA is not usable here: no NVIDIA device is present (installed: onnxruntime-gpu 1.31.1;"
        " NVIDIA driver: none found); remedy: a machine with an NVIDIA GPU and its driver; or --device cpu,"
        " or --allow-fallback\n",
    )
    assert not (tmp_path / "in-masks").exists()


def test_a_damaged_model_is_not_blamed_on_cuda(machine: Machine) -> None:
    machine.error = Fail("[ONNXRuntimeError] : 10 : INVALID_GRAPH : Load model from a.onnx failed: no Transpoze")
    for device in ("auto", "cuda"):
        with pytest.raises(ModelError, match=r"tiny\.onnx: ONNX Runtime refuses the model .* no Transpoze"):
            open_session(TINY, device=device)


@pytest.mark.parametrize(
    ("system", "processor", "packages", "found", "remedy"),
    [
        (
            *("Linux", "x86_64", {"onnxruntime": "1.31.0"}),
            "onnxruntime 1.31.0 is the package without CUDA (installed: onnxruntime 1.31.0; ",
            f"pip uninstall -y onnxruntime onnxruntime-gpu, then {INSTALL};",
        ),
        (
            *("Windows", "AMD64", {"onnxruntime": "1.31.0", "onnxruntime-gpu": "1.30.0"}),
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other"
            " (installed: onnxruntime 1.31.0 and onnxruntime-gpu 1.30.0; ",
            f"pip uninstall -y onnxruntime onnxruntime-gpu, then {INSTALL};",
        ),
        (
            *("Linux", "x86_64", {}),
            "the installed ONNX Runtime was built without CUDA (installed: no package of ONNX Runtime; ",
            f"pip uninstall -y onnxruntime onnxruntime-gpu, then {INSTALL};",
        ),
        (
            *("Linux", "aarch64", {"onnxruntime": "1.31.0"}),
            "segport[cuda] brings nothing for Linux aarch64 (installed: onnxruntime 1.31.0; ",
            "an onnxruntime-gpu built for this machine in place of onnxruntime;",
        ),
    ],
)
def test_a_package_without_cuda_is_named_with_what_replaces_it(
    machine: Machine, system: str, processor: str, packages: dict[str, str], found: str, remedy: str
) -> None:
    machine.system, machine.processor, machine.packages, machine.providers = system, processor, packages, [CPU]
    said = refusal()
    assert f"CUDA is not usable here: {found}" in said
    assert f"remedy: {remedy}" in said
    assert machine.preloaded == 0


def test_two_packages_that_overwrite_each_other_are_the_reason_whatever_else_is_said(machine: Machine) -> None:
    broken(machine)
    machine.packages["onnxruntime"] = "1.30.0"
    assert "are both installed and overwrite each other" in refusal()
    machine.error = None
    assert open_session(TINY, device="cuda").provider == CUDA  # it works all the same: the GPU wheel came last


def test_a_container_without_its_gpu_is_recognised_by_the_hosts_driver(machine: Machine) -> None:
    machine.there.remove("/dev/nvidiactl")
    said = refusal()
    assert "the NVIDIA driver is loaded, but its device /dev/nvidiactl is not here" in said
    assert "docker run --gpus all" in said


def test_windows_gpu_inside_wsl_is_tried(machine: Machine) -> None:
    machine.there = {"/dev/dxg"}
    assert open_session(TINY, device="auto").provider == CUDA


def test_on_windows_the_driver_is_its_library(machine: Machine) -> None:
    machine.system, machine.there = "Windows", set()
    assert open_session(TINY, device="cuda").provider == CUDA
    machine.libraries.clear()
    assert "no NVIDIA driver is installed (nvcuda.dll is not found) (" in refusal()
    assert "remedy: install the NVIDIA driver;" in refusal()


def test_no_package_helps_where_there_is_no_gpu(machine: Machine) -> None:
    machine.system, machine.processor, machine.packages = "Darwin", "arm64", {"onnxruntime": "1.31.0"}
    machine.providers, machine.there = [CPU], set()
    assert open_session(TINY, device="auto").note == "CUDA is not usable: no NVIDIA device is present"
    assert "pip" not in refusal()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023\n", "535.104.05"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release Build\n", "570.86.15"),
        ("something new\n", "loaded"),
    ],
)
def test_the_drivers_version_is_said(machine: Machine, tmp_path: Path, monkeypatch, text: str, shown: str) -> None:
    (tmp_path / "version").write_text(text)
    monkeypatch.setattr(cuda, "DRIVER", tmp_path / "version")
    machine.error = RuntimeError(CUDA_FAILURE.format("35: CUDA driver version is insufficient for CUDA runtime"))
    found = f"(installed: onnxruntime-gpu 1.31.1; NVIDIA driver: {shown})"
    assert f"the NVIDIA driver is too old for this onnxruntime-gpu {found}" in refusal()


def linux(library: str) -> str:
    return NOT_LOADED.format(CANNOT_OPEN.format(library)) + NOT_ON_CPU


@pytest.mark.parametrize(
    ("said", "reason", "remedy"),
    [
        (linux("libcublasLt.so.12"), "libcublasLt.so.12 cannot be loaded", INSTALL),
        (
            "Failed to load libcurand.so.10: libcurand.so.10: cannot open\n" + linux("libcublas.so.13"),
            "libcublas.so.13, libcurand.so.10 cannot be loaded",
            INSTALL,
        ),
        (linux("libcuda.so.1"), "libcuda.so.1 cannot be loaded", "install the NVIDIA driver"),
        (
            'FAIL : Error loading "C:\\venv\\onnxruntime_providers_cuda.dll" which depends on "cublasLt64_12.dll"'
            f' which is missing. (Error 126: "\ufffd\ufffd")\n{NOT_CREATED}{NOT_ON_CPU}',
            "cublasLt64_12.dll cannot be loaded",
            INSTALL,
        ),
        (
            f"Failed to load C:\\my venv\\cudnn\\bin\\cudnn64_9.dll: [WinError 126]\n{NOT_CREATED}{NOT_ON_CPU}",
            "cudnn64_9.dll cannot be loaded",
            INSTALL,
        ),
        (
            NOT_LOADED.format("/lib/libc.so.6: version `GLIBC_2.38' not found") + NOT_ON_CPU,
            "/lib/libc.so.6: version `GLIBC_2.38' not found",
            INSTALL,
        ),
        (NOT_CREATED + NOT_ON_CPU, "Failed to create CUDAExecutionProvider", INSTALL),
        (
            NOT_LOADED.format("libonnxruntime_providers_cuda.so: undefined symbol: cuTensorMapEncodeTiled"),
            "the NVIDIA driver is too old for this onnxruntime-gpu",
            "a newer NVIDIA driver",
        ),
        (
            CUDA_FAILURE.format("100: no CUDA-capable device is detected"),
            "no CUDA-capable device is detected",
            "whether CUDA_VISIBLE_DEVICES hides one",
        ),
        (CUDA_FAILURE.format("2: out of memory"), "out of memory", "GPUs and processes nvidia-smi lists"),
        (NOT_ON_CPU, "a part of this model's graph does not run on CUDA", "--precision fp16"),
        ("\nsomething new", "something new", "nvidia-smi"),
    ],
)
def test_what_onnx_runtime_says_becomes_one_reason_and_one_remedy(
    machine: Machine, said: str, reason: str, remedy: str
) -> None:
    found = diagnose(said)
    assert found.reason == reason
    assert remedy in found.remedy


def test_batches_on_cuda_all_have_one_size_and_what_fills_them_up_is_dropped(machine: Machine) -> None:
    slices = [square(low=n, high=n + 20) for n in range(0, 36, 4)]
    expected = Segmenter(TINY, device="cpu").predict(slices)
    segmenter = Segmenter(TINY, device="cuda", batch_size=4)
    assert machine.session is not None
    assert [(m == e).all() for m, e in zip(segmenter.predict(slices), expected, strict=True)] == [True] * 9
    assert machine.session.held == [4, 4, 4]
    assert len(segmenter.predict(slices[:3], batch_size=2)) == 3
    assert machine.session.held == [4, 4, 4, 4]


def test_batches_on_the_cpu_are_as_long_as_there_are_slices(machine: Machine, monkeypatch) -> None:
    segmenter = Segmenter(TINY, device="cpu", batch_size=4)
    held, run = list[int](), type(segmenter.session.runner).run
    monkeypatch.setattr(type(segmenter.session.runner), "run", lambda self, b: held.append(len(b)) or run(self, b))
    segmenter.predict([square()] * 5, batch_size=4)
    assert held == [4, 1]


def test_an_int8_model_on_cuda_is_told_apart_from_one_made_for_it(machine: Machine) -> None:
    note = "this model is int8, made for CPUs; on CUDA an export with --precision fp16 is the one to use"
    assert Segmenter(device="cuda").session.note == note
    assert Segmenter(TINY, device="cuda").session.note == ""
    assert Segmenter(device="cpu").session.note == ""


def test_output_is_kept_also_when_an_error_ends_it(capfd) -> None:
    said = list[list[str]]()

    def fail() -> None:
        with streams.capture() as kept:
            said.append(kept)
            print("python")
            print("warning", file=sys.stderr)
            os.write(2, b"c++ \xff\n")
            raise ValueError("end")

    with pytest.raises(ValueError, match="end"):
        fail()
    assert said == [["c++ \ufffd\n", "python\nwarning\n"]]
    print("after")
    os.write(2, b"after\n")
    assert capfd.readouterr() == ("after\n", "after\n")


def test_without_a_place_for_a_file_stderr_stays_as_it_is(monkeypatch: pytest.MonkeyPatch, capfd) -> None:
    def none(*_: Any) -> None:
        raise FileNotFoundError("no usable temporary directory")

    monkeypatch.setattr(tempfile, "TemporaryFile", none)
    with streams.capture() as said:
        print("python")
        os.write(2, b"c++\n")
    assert (said, capfd.readouterr()) == (["python\n"], ("", "c++\n"))


def test_a_program_without_a_console_can_open_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    assert open_session(TINY, device="cpu").run(np.zeros((1, 64, 64, 3), np.uint8)).shape == (1, 64, 64)


def child(code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own, where a GPU is hidden if there is one."""
    hidden = os.environ | {"CUDA_VISIBLE_DEVICES": "-1"}
    return subprocess.run([sys.executable, "-c", code], env=hidden, capture_output=True, text=True, check=False)


TRY = "import sys; from segport import cuda; from segport.cli import main; cuda.absent = lambda _: None\n"


def test_the_real_onnx_runtime_prints_nothing_when_cuda_fails() -> None:
    done = child(f"{TRY}sys.exit(main(['--self-test', '--json', '--device', 'cuda']))")
    assert (done.returncode, done.stdout) == (3, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: --device cuda: CUDA is not usable here: ")
    assert "ONNXRuntimeError" not in line


def test_the_real_onnx_runtime_leaves_stdout_to_the_result_when_auto_goes_to_the_cpu() -> None:
    done = child(f"{TRY}sys.exit(main(['--self-test', '--json', '--device', 'auto']))")
    assert done.returncode == 0
    assert json.loads(done.stdout)["provider"] == CPU
    assert "onnxruntime" not in done.stderr


def test_nothing_is_printed_on_the_cpu_also_where_the_import_warns() -> None:
    """On WSL, on a Raspberry Pi and on some clouds the import prints "GPU device discovery failed"."""
    noisy = """
import os, sys

class Warns:
    def find_spec(self, name, path=None, target=None):
        if name == "onnxruntime":
            os.write(2, b"[W:onnxruntime:Default, device_discovery.cc:164] GPU device discovery failed")
            sys.meta_path.remove(self)

warns = Warns()
sys.meta_path.insert(0, warns)
from segport.cli import main
code = main(["--self-test", "--json", "--device", "cpu"])
assert warns not in sys.meta_path
sys.exit(code)
"""
    done = child(noisy)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["passed"] is True
