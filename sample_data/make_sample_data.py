"""Draw the synthetic slices of this folder and the golden slices of the runtime package.

Anatomy comes from the ICBM 2009a template that the nilearn package carries; folds, head, lesions and the
faults of a scanner are drawn by formula, nothing is taken from a patient. Everything is seeded, so that
`python sample_data/make_sample_data.py` gives the committed pixels again.

Lengths are millimetres, which are also voxels of the template and nearly pixels of a slice. Centres are MNI
coordinates (x right, y front, z up). Channels are pre-contrast T1, FLAIR, post-contrast T1, in that order.
A signal is float64 [3, H, W], white matter on T1 being 1; `xyz` is the voxel [3, H, W] under each pixel.
"""

import argparse
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import cv2
import nibabel
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage  # type: ignore[import-untyped]

Field = NDArray[np.float64]
Pixels = NDArray[np.uint8]
Triple = tuple[float, float, float]
Template = tuple[Field, Field, Field]  # see load_template

HERE = Path(__file__).resolve().parent
GOLDEN = HERE.parent / "runtime" / "segport" / "golden"
SIZE, SLICES = 256, 12
ORIGIN = np.array([98.0, 134.0, 72.0])[:, None, None]  # voxel of MNI (0, 0, 0) in the template
TIFF = [cv2.IMWRITE_TIFF_COMPRESSION, 8, cv2.IMWRITE_TIFF_PREDICTOR, 2]  # Adobe deflate, horizontal predictor
PNG = [cv2.IMWRITE_PNG_COMPRESSION, 9]

# Signal on (pre, FLAIR, post), white matter on T1 being 1: read off slices of low-grade glioma by eye.
CSF, GREY, WHITE = np.array([(0.32, 0.28, 0.34), (0.80, 1.06, 0.84), (1.00, 0.92, 1.00)])[..., None, None]
BONE, MARROW, MUSCLE = np.array([(0.10, 0.08, 0.12), (0.95, 0.60, 0.85), (0.70, 0.60, 0.85)])[..., None, None]
FAT, SKIN, AIR = np.array([(2.30, 2.10, 1.80), (0.75, 0.80, 0.95), (0.0, 0.0, 0.0)])[..., None, None]
DURA, VESSEL, CORE = np.array([(0.50, 0.50, 0.95), (0.55, 0.45, 2.20), (0.42, 0.75, 0.45)])[..., None, None]


@dataclass(frozen=True)
class Lesion:
    """One lesion: an ellipsoid with a rough outline that runs along white matter.

    centre, radii: mm along x, y, z; gains: signal against brain on pre, FLAIR, post; core: depth at which
    dark patches begin, as a share of the radius (1 for none); soft, rough: width and wobble of the edge, mm.
    """

    centre: Triple
    radii: Triple
    gains: Triple
    core: float = 1.0
    soft: float = 1.5
    rough: float = 4.0


@dataclass(frozen=True)
class Patient:
    """One head and its scan.

    z: mm of the first slice and between slices; angles: degrees in the plane and about the left-right axis;
    scale: pixels a mm along x and y; level, noise: grey values on each channel; blur: pixels; scalp: mm.
    """

    seed: int
    z: tuple[float, float]
    angles: tuple[float, float]
    scale: tuple[float, float]
    level: Triple
    noise: Triple
    blur: float
    scalp: float
    lesions: tuple[Lesion, ...]


PATIENTS = (
    Patient(11, (2.0, 5.6), (-3.0, 6.0), (1.00, 0.98), (62, 62, 60), (3.2, 4.6, 3.2), 0.55, 6.5, (
        Lesion((-32, 22, 34), (19, 24, 19), (0.80, 1.60, 0.84)),)),
    Patient(23, (0.0, 5.8), (4.0, -4.0), (1.04, 1.02), (70, 58, 66), (2.6, 5.6, 2.8), 0.50, 5.5, (
        Lesion((38, -8, 14), (19, 27, 18), (0.66, 1.75, 0.72), core=0.6, soft=1.2, rough=5.0),)),
    Patient(37, (4.0, 5.5), (2.0, 9.0), (0.95, 0.97), (54, 66, 58), (4.2, 4.0, 4.4), 0.70, 7.0, (
        Lesion((26, -52, 46), (16, 21, 16), (0.88, 1.45, 0.92), soft=2.5, rough=5.0),
        Lesion((34, -18, 40), (8, 10, 9), (0.90, 1.40, 0.95), soft=2.5))),
    Patient(59, (1.0, 5.7), (-6.0, 0.0), (0.98, 1.03), (66, 54, 56), (2.8, 3.4, 3.4), 0.60, 6.0, (
        Lesion((-30, -58, 20), (16, 25, 21), (0.76, 1.85, 0.88), core=0.85, soft=2.0, rough=6.0),)),
)  # fmt: skip
GOLDEN_SLICES = ((1, 5), (1, 8), (1, 12), (2, 2), (2, 4), (3, 9), (4, 3), (4, 6))  # (patient, slice)


def load_template() -> Template:
    """Give grey and white matter in 0..1 and the mm outside the brain's hull (below 0 within), all [x, y, z]."""
    spec = find_spec("nilearn")  # importing it would take seconds; its files are enough
    if spec is None or spec.origin is None:
        raise SystemExit("make_sample_data.py: nilearn is not installed; run: pip install nilearn")
    data = Path(spec.origin).parent / "datasets" / "data"
    paths = (data / f"mni_icbm152_{tissue}_tal_nlin_sym_09a_converted.nii.gz" for tissue in ("gm", "wm"))
    grey, white = (nibabel.Nifti1Image.from_filename(path).get_fdata() / 255 for path in paths)
    # The hull bridges the sulci, so that what lies between it and the brain is fluid.
    hull = ndimage.gaussian_filter((grey + white > 0.2).astype(np.float64), 6) > 0.35
    outside = ndimage.distance_transform_edt(~hull) - ndimage.distance_transform_edt(hull)
    return grey, white, ndimage.gaussian_filter(outside, 1.5)


def smooth_noise(rng: np.random.Generator, xyz: Field, spacing: float) -> Field:
    """Draw a random field [H, W] of deviation 0.7 that varies over `spacing` mm, one through all slices."""
    grid = rng.standard_normal((48, 48, 48))
    # Cubic B-spline weights without a prefilter: very smooth; 2.2 brings the deviation up to 0.7.
    weighed: Field = ndimage.map_coordinates(grid, xyz / spacing, order=3, mode="grid-wrap", prefilter=False)
    return 2.2 * weighed


def step(distance: Field, width: float) -> Field:
    """Go smoothly from 0 (distance below 0) to 1 (above) over about twice `width`, the unit of distance."""
    return np.asarray(1 / (1 + np.exp(-np.clip(distance / width, -30, 30))))


def mix(signal: Field, other: Field, share: Field) -> Field:
    """Replace a share [H, W] in 0..1 of a signal by another, [3, H, W] or [3, 1, 1]."""
    return signal * (1 - share) + other * share


def place(patient: Patient, z: float) -> Field:
    """Find the voxel under each pixel of a slice: nose up, the patient's right on the left, as in LGG."""
    # Bent smoothly, so that each patient has a head of their own; lesions push their surroundings away.
    rows, columns = np.mgrid[0:SIZE, 0:SIZE].astype(np.float64) - (SIZE - 1) / 2
    angle, tilt = np.deg2rad(patient.angles)
    x = -(np.cos(angle) * columns + np.sin(angle) * rows) / patient.scale[0]
    y = (np.sin(angle) * columns - np.cos(angle) * rows) / patient.scale[1] - 17  # 17 mm: the brain's middle
    xyz = np.stack([x, y, z + np.tan(tilt) * y]) + ORIGIN
    rng = np.random.default_rng([patient.seed, 1])
    bent = xyz + np.stack([2.2 * smooth_noise(rng, xyz, 45) + smooth_noise(rng, xyz, 15) for _ in range(3)])
    for lesion in patient.lesions:
        offset = xyz - ORIGIN - np.array(lesion.centre)[:, None, None]
        bent -= 0.22 * offset * np.exp(-np.sum(offset**2, axis=0) / (2.4 * np.mean(np.square(lesion.radii))))
    return np.asarray(bent)


def draw_tissues(template: Template, patient: Patient, xyz: Field) -> tuple[Field, Field]:
    """Give the shares of fluid, grey and white matter [3, H, W], summing to 1, and the mm outside the hull.

    The template is a mean of 152 brains, its cortex a haze. Random folds are drawn into the outer 25 mm as
    the zero lines of a smooth field, and the shares are sharpened, which gives one brain with its own sulci.
    """
    rng = np.random.default_rng([patient.seed, 2])
    grey, white = (ndimage.map_coordinates(part, xyz, order=1) for part in template[:2])
    outside = ndimage.map_coordinates(template[2], xyz, order=1, mode="nearest")
    fold = np.exp(-((smooth_noise(rng, xyz, 7) / 0.3) ** 2)) * np.clip(1 + outside / 25, 0, 1) * np.clip(grey * 2, 0, 1)
    shares = np.stack([1 - grey - white + 0.95 * fold, grey + 0.1 * fold, white - 0.3 * fold])
    shares = np.exp(9 * (shares + 0.08 * smooth_noise(rng, xyz, 4)))
    return np.asarray(shares / shares.sum(axis=0)), outside


def draw_vessels(signal: Field, patient: Patient, fluid: Field, xyz: Field, outside: Field) -> Field:
    """Draw what takes up contrast agent: falx, sinus along the midline, small vessels, choroid plexus."""
    rng = np.random.default_rng([patient.seed, 3])
    midline = xyz[0] - ORIGIN[0]
    sinus = np.exp(-((midline / 4) ** 2) - ((outside + 1) / 3) ** 2)
    signal = mix(signal, DURA, 0.8 * np.exp(-((midline / 0.8) ** 2)) * fluid * (outside > -28))
    small = 0.8 * step(smooth_noise(rng, xyz, 3.5) - 1.5, 0.12) * (outside > -25)
    plexus = 0.5 * step(smooth_noise(rng, xyz, 5) - 0.9, 0.2) * (outside < -35)
    return mix(mix(signal, VESSEL, fluid * (small + plexus)), VESSEL, np.clip(1.4 * sinus, 0, 1))


def add_lesion(signal: Field, lesion: Lesion, seed: int, white: Field, xyz: Field) -> tuple[Field, Field]:
    """Put a lesion into the brain's signal; give it and how much of each pixel is lesion, [H, W] in 0..1."""
    rng = np.random.default_rng([seed, 4])
    centre, radii, gains = np.array([lesion.centre, lesion.radii, lesion.gains])[..., None, None]
    depth = radii.min() * (1 - np.sqrt(np.sum(((xyz - ORIGIN - centre) / radii) ** 2, axis=0)))
    depth += lesion.rough * (0.8 * smooth_noise(rng, xyz, 14) + 0.45 * smooth_noise(rng, xyz, 6) + 0.6 * white - 0.2)
    # The falx stops these lesions: none crosses to the other side.
    depth = np.minimum(depth, np.sign(lesion.centre[0]) * (xyz[0] - ORIGIN[0]) - 2)
    whole = step(depth, lesion.soft / 2)
    core = whole * step(depth - lesion.core * radii.min() + 5 * smooth_noise(rng, xyz, 7), 1.0)
    # Swelling hides the folds: most of a lesion's signal is its own, little that of the matter under it.
    own = (0.35 * np.maximum(signal, 0.6) + 0.62) * gains * (1 + 0.08 * smooth_noise(rng, xyz, 6))
    return mix(mix(signal, own, whole), CORE, 0.85 * core * (lesion.core < 1)), whole


def draw_head(signal: Field, patient: Patient, xyz: Field, outside: Field) -> Field:
    """Lay fluid, skull, fat and skin round the brain's signal; outside: mm from the hull [H, W]."""
    rng = np.random.default_rng([patient.seed, 5])
    x, y, z = xyz - ORIGIN
    # A patient lies on the back of the head, where the scalp is thick; muscle fills the temples.
    temple = np.exp(-(((y - 22) / 24) ** 2)) * step(30 - z, 7) * step(np.abs(x) - 35, 4)
    inner = 1.2 + 0.5 * smooth_noise(rng, xyz, 12)
    skull = 6.2 + 0.8 * smooth_noise(rng, xyz, 30)
    scalp = patient.scalp * (0.9 + 0.2 * smooth_noise(rng, xyz, 30) + 0.4 * step(-y - 70, 12)) + 3 * temple
    fat = FAT * (1 + 0.12 * smooth_noise(rng, xyz, 4))
    fat = mix(fat, MUSCLE, 0.9 * temple * step(0.65 * scalp + skull - outside, 0.6))
    begins = (0 * inner, inner, inner + 1.6, skull - 1.6, skull, skull + scalp - 1.3, skull + scalp)
    for begin, tissue in zip(begins, (CSF, BONE, MARROW, BONE, fat, SKIN, AIR), strict=True):
        signal = mix(signal, tissue, step(outside - begin, 0.4))
    return signal


def degrade(signal: Field, patient: Patient, index: int, xyz: Field) -> Pixels:
    """Scan a signal: coil shading, blur, Rician noise, 8 bits; gives [H, W, 3] uint8 0..255."""
    coil, noise = np.random.default_rng([patient.seed, 6]), np.random.default_rng([patient.seed, 7, index])
    channels = []
    for channel, level, sigma in zip(signal, patient.level, patient.noise, strict=True):
        shaded = level * channel * np.exp(0.13 * smooth_noise(coil, xyz, 80))
        real, imaginary = sigma * noise.standard_normal((2, SIZE, SIZE))
        magnitude = np.hypot(ndimage.gaussian_filter(shaded, 0.4) + real, imaginary)
        # LGG's slices were resized to 256 pixels, which blurs the noise too, and their background is near 0.
        channels.append(ndimage.gaussian_filter(magnitude, patient.blur) - 0.8 * sigma)
    return np.asarray(np.clip(np.rint(np.stack(channels, axis=-1)), 0, 255), np.uint8)


def draw_slice(template: Template, patient: Patient, index: int) -> tuple[Pixels, Pixels]:
    """Draw slice `index` (from 0, upwards): pixels [H, W, 3] uint8 0..255 and mask [H, W] uint8, 0 or 255."""
    xyz = place(patient, patient.z[0] + index * patient.z[1])
    shares, outside = draw_tissues(template, patient, xyz)
    signal = CSF * shares[0] + GREY * shares[1] + WHITE * shares[2]
    signal = draw_vessels(signal, patient, shares[0], xyz, outside)
    tumour = np.zeros_like(outside)
    for number, lesion in enumerate(patient.lesions):
        signal, whole = add_lesion(signal, lesion, 100 * patient.seed + number, shares[2], xyz)
        tumour = np.maximum(tumour, whole)
    mask = ndimage.binary_opening((tumour > 0.5) & (outside < 0), np.ones((5, 5))).astype(np.uint8) * 255
    return degrade(draw_head(signal, patient, xyz, outside), patient, index, xyz), mask


def write(path: Path, pixels: Pixels, mask: Pixels, options: list[int]) -> None:
    """Write a slice and, beside it, its mask without loss. Pixels are RGB, which OpenCV wants reversed."""
    for name, values in ((path, pixels[:, :, ::-1]), (path.with_stem(f"{path.stem}_mask"), mask)):
        name.parent.mkdir(parents=True, exist_ok=True)
        cv2.imencode(name.suffix, values, options)[1].tofile(name)


def main() -> None:
    """Write the patients' folders and the golden slices."""
    parser = argparse.ArgumentParser(description="Draw the synthetic slices.")
    parser.add_argument("--out", type=Path, default=HERE, help="where patient_1/ .. patient_4/ go")
    parser.add_argument("--golden", type=Path, default=GOLDEN, help="where golden_1.png .. golden_8.png go")
    arguments = parser.parse_args()
    template = load_template()
    for number, patient in enumerate(PATIENTS, start=1):
        for index in range(SLICES):
            drawn = draw_slice(template, patient, index)
            write(arguments.out / f"patient_{number}/patient_{number}_{index + 1}.tif", *drawn, TIFF)
            if (number, index + 1) in GOLDEN_SLICES:
                golden = GOLDEN_SLICES.index((number, index + 1)) + 1
                write(arguments.golden / f"golden_{golden}.png", *drawn, PNG)


if __name__ == "__main__":
    main()
