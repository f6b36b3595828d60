"""What a training runs on: the device, and the precision that autocast gives it."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

from segport.errors import DeviceError
from segport.settings import Device
from segport_train.settings import Precision

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Hardware:
    """The device and the precision of its matrix products ("fp32", "bf16" or "fp16")."""

    device: torch.device
    precision: str

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context in which forward passes run; fp32 needs none."""
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=DTYPES[self.precision])

    @property
    def scales_gradients(self) -> bool:
        """Whether gradients need loss scaling (fp16 underflows)."""
        return self.precision == "fp16"


def choose_hardware(device: Device, precision: Precision) -> Hardware:
    """Return the hardware for the settings: "auto" takes CUDA where it works, and bf16 where it is fast.

    On CPUs bf16 is chosen only with AVX-512 BF16 or AMX: it is emulated, and slower than fp32, elsewhere.
    Raises `DeviceError` when CUDA is asked for and not usable, or fp16 on the CPU.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise DeviceError("--device cuda: PyTorch finds no usable CUDA device; remedy: a driver, or --device cpu")
    kind = "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"
    if kind == "cpu" and precision == "fp16":
        raise DeviceError("--precision fp16 needs CUDA; remedy: --precision bf16 or fp32")
    if precision != "auto":
        return Hardware(torch.device(kind), precision)
    if kind == "cuda":
        return Hardware(torch.device(kind), "bf16" if torch.cuda.is_bf16_supported() else "fp16")
    return Hardware(torch.device(kind), "bf16" if torch.cpu._is_avx512_bf16_supported() else "fp32")
