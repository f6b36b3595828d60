"""The runtime is light: it runs where torch, onnx and pandas cannot be imported, and --help loads nothing heavy."""

import subprocess
import sys
from pathlib import Path

from helpers import SAMPLE_DATA

HEAVY = ["torch", "torchvision", "onnx", "pandas", "matplotlib", "openvino"]  # openvino: only where asked for
BLOCKED = f"import sys; sys.modules.update(dict.fromkeys({HEAVY}));"


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_the_embedded_model_runs_where_torch_cannot_be_imported(tmp_path: Path) -> None:
    call = f"main(['{SAMPLE_DATA}/patient_1/patient_1_6.tif', '--out', '{tmp_path}/out', '--score'])"
    done = run(f"{BLOCKED} from segport.cli import main; sys.exit({call})")
    assert done.returncode == 0, done.stderr
    assert "1 mask in" in done.stdout
    assert (tmp_path / "out" / "patient_1_6_mask.png").exists()


def test_help_answers_before_anything_heavy_is_imported() -> None:
    heavy = "{'numpy', 'cv2', 'onnxruntime', 'openvino', 'tqdm'} & set(sys.modules)"
    done = run(f"import sys; from segport.cli import main; main(['--help']); sys.exit(str({heavy} or ''))")
    assert done.stderr.strip() == ""
    assert "--overlay" in done.stdout


def test_importing_the_package_does_no_work() -> None:
    done = run("import sys, segport; sys.exit('numpy' in sys.modules)")
    assert done.returncode == 0, done.stderr
