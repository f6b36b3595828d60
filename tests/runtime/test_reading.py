"""What becomes of every kind of file that can bear a picture's name."""

import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path, PurePath

import cv2
import numpy as np
import pytest

from fuzz import files
from fuzz.files import Chunk, encode, join_jpeg, join_png, join_tiff, palette_tiff, png, split_jpeg, split_png, tiff
from helpers import write
from segport import reading
from segport.contract import ModelContract
from segport.errors import SliceError, UsageError
from segport.limits import PIXEL_LIMIT, pixel_limit
from segport.preprocess import prepare
from segport.reading import read_slice, read_truth
from segport.sources import Slice

GREY = np.arange(6, dtype=np.uint8).reshape(2, 3) * 10
RGB = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)
NOISE = np.random.default_rng(0).integers(0, 256, (16, 12, 3), np.uint8)
COLOURS = np.random.default_rng(1).integers(0, 256, (256, 3), np.uint8)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "a.tif"


def read(file: Path, data: bytes) -> np.ndarray:
    file.write_bytes(data)
    return read_slice(file)


def refusal(file: Path, data: bytes) -> str:
    with pytest.raises(SliceError) as caught:
        read(file, data)
    return str(caught.value)


def same(found: np.ndarray, expected: np.ndarray) -> bool:
    return found.dtype == expected.dtype and np.array_equal(found, expected)


# what is read


@pytest.mark.parametrize("suffix", [".tif", ".png", ".bmp"])
def test_channels_are_read_in_rgb_order(tmp_path: Path, suffix: str) -> None:
    assert same(read_slice(write(tmp_path / f"a{suffix}", RGB)), RGB)


@pytest.mark.parametrize("name", ["with spaces.png", "Schädel_ß.png", "脳_断面.png", "дом.png"])
def test_names_in_any_script_are_read(tmp_path: Path, name: str) -> None:
    assert same(read_slice(write(tmp_path / name, GREY)), GREY)


def test_the_content_decides_not_the_ending(file: Path) -> None:
    for ending in (".png", ".bmp", ".tif"):
        assert same(read(file, encode(ending, GREY)), GREY)
    assert read(file, encode(".jpg", NOISE)).shape == NOISE.shape


@pytest.mark.parametrize("kind", ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("tile", [0, 32])
@pytest.mark.parametrize("big", [False, True])
def test_every_number_type_of_tiff_is_read_as_stored(file: Path, kind: str, order: str, tile: int, big: bool) -> None:
    for pixels, photometric in ((GREY.astype(kind), 1), (RGB.astype(kind), 2)):
        made = tiff(pixels, photometric, order=order, tile=tile)
        made.big = big
        assert same(read(file, join_tiff(made)), pixels)


def test_16_bit_png_is_read_as_stored(file: Path) -> None:
    deep = RGB.astype(np.uint16) * 3000
    assert same(read(file, encode(".png", deep[..., ::-1])), deep)


def test_packed_bits_are_scaled_to_the_full_range(file: Path) -> None:
    bits = tiff(np.array([[0b10100000]], np.uint8), t256=3, t258=1)
    assert same(read(file, join_tiff(bits)), np.array([[255, 0, 255]], np.uint8))
    twelve = tiff(np.array([[0xFF, 0xF0, 0x01]], np.uint8), t256=2, t258=12)
    assert same(read(file, join_tiff(twelve)), np.array([[0xFFF0, 0x0010]], np.uint16))
    assert same(read(file, join_png(png(3, 1, 2, 0, b"\0\xe4"))), np.array([[255, 170, 85]], np.uint8))


@pytest.mark.parametrize("compression", [1, 5, 8, 32773, 32946])
def test_compressed_tiff_strips_are_read(file: Path, compression: int) -> None:
    strips = (cv2.IMWRITE_TIFF_COMPRESSION, compression, cv2.IMWRITE_TIFF_ROWSPERSTRIP, 5)
    assert same(read(file, encode(".tif", NOISE[..., ::-1], *strips)), NOISE)


def test_jpeg_in_tiff_is_read(file: Path) -> None:
    flat = np.full((16, 16, 3), (10, 120, 230), np.uint8)
    found = read(file, encode(".tif", flat[..., ::-1], cv2.IMWRITE_TIFF_COMPRESSION, 7))
    assert np.abs(found.astype(int) - flat).max() <= 4


def test_palettes_become_rgb(file: Path) -> None:
    expected = COLOURS[GREY]
    assert same(read(file, join_tiff(palette_tiff(GREY, COLOURS))), expected)
    rows = b"".join(b"\0" + row.tobytes() for row in GREY)
    assert same(read(file, join_png(png(3, 2, 8, 3, rows, Chunk(b"PLTE", COLOURS.tobytes())))), expected)
    palette = np.insert(COLOURS[:, ::-1], 3, 0, axis=1).tobytes()
    rows = b"".join(row.tobytes() + b"\0" for row in GREY[::-1])
    assert same(read(file, files.bmp(3, 2, 8, rows, palette)), expected)
    assert same(read(file, files.bmp(3, -2, 8, rows, palette)), expected[::-1])


def test_run_lengths_in_bmp_are_read(file: Path) -> None:
    grey = np.repeat(np.arange(256, dtype=np.uint8), 4).tobytes()
    data = files.bmp(3, 2, 8, b"\3a\0\0\3b\0\1", grey, compression=1)
    assert same(read(file, data), np.array([[98] * 3, [97] * 3], np.uint8))


def test_white_is_zero_is_inverted_at_8_bits_and_refused_above(file: Path) -> None:
    assert same(read(file, join_tiff(tiff(GREY, 0))), 255 - GREY)
    assert "16 bits in TIFF's photometric interpretation 0" in refusal(file, join_tiff(tiff(GREY.astype("u2"), 0)))


def test_cmyk_jpeg_becomes_rgb(file: Path) -> None:
    (quantise, frame, *tables, scan) = split_jpeg(encode(".jpg", np.zeros((8, 8), np.uint8)))[1:]
    components = b"".join(bytes([i, 0x11, 0]) for i in range(1, 5))
    frame = (frame[0], frame[1][:5] + b"\4" + components, b"")
    selectors = b"\4" + b"".join(bytes([i, 0]) for i in range(1, 5)) + b"\0\x3f\0"
    scan = (scan[0], selectors, b"\x28\xa2\x8a")  # four blocks whose coefficients are all 0: every ink is at 128
    found = read(file, join_jpeg([(0xEE, b"Adobe\0\x64\0\0\0\0\0", b""), quantise, frame, *tables, scan]))
    assert found.shape == (8, 8, 3)
    assert np.abs(found.astype(int) - 64).max() <= 2, "half of the ink on half of black"


@pytest.mark.parametrize("orientation", range(1, 9))
def test_rotation_tags_are_not_applied(file: Path, orientation: int) -> None:
    for order in "<>":
        for big in (False, True):
            for pixels in (GREY, GREY.astype(np.uint16)):
                made = tiff(pixels, order=order, t274=orientation)
                made.big = big
                assert same(read(file, join_tiff(made)), pixels)
    plain = encode(".jpg", NOISE)
    turned = join_jpeg([files.exif(orientation), *split_jpeg(plain)])
    assert same(read(file, turned), read(file, plain))
    turned = split_png(encode(".png", GREY))
    turned.insert(1, Chunk(b"eXIf", files.exif(orientation)[1][6:]))
    assert same(read(file, join_png(turned)), GREY)


def test_alpha_is_kept_and_refused_by_prepare(file: Path, contract: ModelContract) -> None:
    rgba = np.dstack([RGB, np.full((2, 3), 200, np.uint8)])
    found = read(file, encode(".png", rgba[..., [2, 1, 0, 3]]))
    assert same(found, rgba)
    with pytest.raises(SliceError, match="4 channels; expected 1"):
        prepare(found, contract)
    assert read(file, join_png(png(1, 1, 8, 4, b"\0\x07\x09"))).tolist() == [[[7, 7, 7, 9]]]
    assert read(file, join_tiff(tiff(rgba, 2, t338=1))).shape == (2, 3, 4)


def test_nan_and_infinity_are_read_and_refused_by_prepare(file: Path, contract: ModelContract) -> None:
    for value in (np.nan, np.inf, -np.inf):
        pixels = np.array([[0, value]], np.float32)
        found = read(file, join_tiff(tiff(pixels)))
        assert np.array_equal(found, pixels, equal_nan=True)
        with pytest.raises(SliceError, match="NaN or infinity"):
            prepare(found, contract, ((0, 1),))


def test_a_single_pixel_is_a_slice(file: Path, contract: ModelContract) -> None:
    for ending in (".png", ".tif", ".bmp"):
        assert same(read(file, encode(ending, np.array([[7]], np.uint8))), np.array([[7]], np.uint8))
    assert (prepare(read(file, encode(".png", np.array([[7]], np.uint8))), contract) == 7).all()


def test_chunks_that_decide_no_pixel_do_not_reach_the_decoder(file: Path, capfd: pytest.CaptureFixture[str]) -> None:
    chunks = split_png(encode(".png", GREY))
    profile = b"sRGB\0\0" + zlib.compress(bytes(10_000_000))  # libpng would inflate it, and print a warning
    chunks[1:1] = [Chunk(b"iCCP", profile), Chunk(b"acTL", struct.pack(">II", 1, 0)), Chunk(b"gAMA", b"\0\0\1\0")]
    assert same(read(file, join_png(chunks)), GREY)
    assert capfd.readouterr().err == ""


# what is refused


@pytest.mark.parametrize(
    "data",
    [
        encode(".jpg", NOISE),
        encode(".jpg", NOISE, cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
        encode(".png", NOISE),
        encode(".bmp", NOISE),
        encode(".tif", NOISE),
        encode(".tif", NOISE, cv2.IMWRITE_TIFF_COMPRESSION, 8, cv2.IMWRITE_TIFF_ROWSPERSTRIP, 4),
        encode(".tif", NOISE, cv2.IMWRITE_TIFF_COMPRESSION, 7),
        join_tiff(tiff(RGB.astype(np.float32), 2, order=">")),
        join_tiff(tiff(GREY, tile=32)),
    ],
    ids=["jpg", "progressive jpg", "png", "bmp", "lzw tif", "deflate tif", "jpeg tif", "float tif", "tiled tif"],
)
def test_a_file_truncated_anywhere_is_refused(file: Path, data: bytes) -> None:
    read(file, data)
    for length in range(1, len(data)):
        assert refusal(file, data[:length]).startswith(("cannot be decoded", "has 0 channels"))


def test_a_page_that_was_cut_off_is_missed(file: Path) -> None:
    made = tiff(GREY)
    made.pages[0].next_page = 5_000
    assert "truncated or damaged" in refusal(file, join_tiff(made))


def test_several_pages_are_counted_and_not_decoded(file: Path) -> None:
    page = tiff(GREY).pages[0]
    for big in (False, True):
        made = files.Tiff(">", [page], big)
        made.pages = tiff(GREY, order=">").pages * 5_000
        assert refusal(file, join_tiff(made)).startswith("holds 5000 pages; expected one slice a file; remedy: save")
    made.pages = made.pages[:1] * 12_000
    assert refusal(file, join_tiff(made)).startswith("holds 10000 or more pages")
    circle = tiff(GREY)
    circle.pages[0].next_page = 8 + GREY.size  # where its own tags stand
    assert "in a circle" in refusal(file, join_tiff(circle))
    chunks = split_png(encode(".png", GREY))
    chunks.insert(1, Chunk(b"acTL", struct.pack(">II", 30, 0)))
    assert "holds 30 frames" in refusal(file, join_png(chunks))


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (tiff(RGB.astype("u2"), 2, planar=True), "stores its 16-bit channels in planes"),
        (tiff(RGB.astype("f4"), 2, planar=True, order=">"), "stores its 32-bit channels in planes"),
        (tiff(RGB, 1), "has 3 channels but is marked as grey"),
        (tiff(RGB.astype("u2"), 1), "has 3 channels but is marked as grey"),
        (tiff(RGB.astype("u2"), 2, t277=1), "has 1 channel but is marked as RGB"),
        (tiff(RGB[..., :2]), "has 2 channels; expected 1 or 3"),
        (tiff(RGB[..., :2].astype("u2")), "has 2 channels; expected 1 or 3"),
        (tiff(np.zeros((2, 2, 7), np.uint8)), "has 7 channels; expected 1 or 3"),
        (tiff(GREY.astype("u2"), 3), "16 bits in TIFF's photometric interpretation 3"),
        (tiff(np.zeros((2, 2, 4), "u2"), 5), "16 bits in TIFF's photometric interpretation 5"),
        (tiff(GREY.astype("f2")), "cannot be decoded"),
        (tiff(GREY, t322=50_000, t323=50_000), "has tiles of 50000 x 50000 pixels; the limit is 100,000,000"),
    ],
)  # fmt: skip
def test_tiffs_whose_pixels_opencv_would_lose_or_invent_are_refused(file: Path, made: files.Tiff, message: str) -> None:
    assert message in refusal(file, join_tiff(made))


def test_planes_of_8_bits_are_read(file: Path) -> None:
    assert same(read(file, join_tiff(tiff(RGB, 2, planar=True))), RGB)


@pytest.mark.parametrize(("kind", "tile"), [("u2", 16), ("f8", 0)])
def test_a_colour_tiff_that_does_not_give_its_channels_is_refused(file: Path, kind: str, tile: int) -> None:
    made = tiff(RGB.astype(kind), 2, tile=tile)
    made.pages[0].tags = [tag for tag in made.pages[0].tags if tag.number != files.SAMPLES]
    assert "has 1 channel but is marked as RGB" in refusal(file, join_tiff(made))  # found by fuzzing: memory as pixels


def test_places_beyond_any_file_are_refused(file: Path) -> None:
    made = tiff(GREY)
    made.big = True
    made.pages[0].next_page = 2**63 + 1
    assert "truncated or damaged" in refusal(file, join_tiff(made))  # found by fuzzing: an OverflowError


def test_a_png_with_a_wrong_checksum_is_refused(file: Path) -> None:
    chunks = split_png(encode(".png", GREY))
    chunks[1].checksum = 1
    assert "the checksum of its b'IDAT' chunk is wrong" in refusal(file, join_png(chunks))


def test_a_jpeg_that_asks_for_hours_is_refused(file: Path) -> None:
    segments = split_jpeg(encode(".jpg", NOISE, cv2.IMWRITE_JPEG_PROGRESSIVE, 1))
    assert "holds 1010 JPEG scans; expected at most 100" in refusal(file, join_jpeg(segments + segments[-1:] * 1000))


def test_other_formats_and_text_are_refused(file: Path) -> None:
    assert "starts with b'GIF8', as no TIFF, PNG, JPEG or BMP" in refusal(file, encode(".gif", RGB))
    assert "starts with b'hell'" in refusal(file, b"hello")
    assert "is empty (0 bytes)" in refusal(file, b"")


def test_what_is_not_a_regular_file_is_refused_without_waiting(tmp_path: Path) -> None:
    (tmp_path / "folder.tif").mkdir()
    with pytest.raises(SliceError, match="is not a regular file"):
        read_slice(tmp_path / "folder.tif")
    with pytest.raises(SliceError, match=r"cannot be read \(No such file"):
        read_slice(tmp_path / "missing.tif")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pipes and devices among its files")
def test_pipes_and_devices_are_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.tif")
    (tmp_path / "device.tif").symlink_to("/dev/zero")
    for name in ("pipe.tif", "device.tif"):
        with pytest.raises(SliceError, match="is not a regular file but a folder, pipe or device"):
            read_slice(tmp_path / name)


def test_a_file_that_is_too_large_is_refused_unread(file: Path) -> None:
    with file.open("wb") as stream:
        stream.truncate(50 * 10**9)  # sparse: takes no room on the disk
    with pytest.raises(SliceError, match=r"has 50,000,000,000 bytes; expected at most 1,073,741,824; remedy: save one"):
        read_slice(file)


def test_what_opencv_throws_comes_back_as_the_reason(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    error = cv2.error()
    error.err = "Failed to allocate 800000000 bytes"

    def throw(data: np.ndarray, flags: int) -> None:
        raise error

    monkeypatch.setattr(reading.cv2, "imdecode", throw)
    assert refusal(file, encode(".png", GREY)) == "cannot be decoded (Failed to allocate 800000000 bytes)"


# limits


def test_a_bomb_is_refused_by_what_its_header_claims(file: Path) -> None:
    for data in (join_png(png(60_000, 60_000, 8, 0, b"\0")), join_tiff(tiff(GREY, t256=60_000, t257=60_000))):
        message = refusal(file, data)
        assert message.startswith("holds more pixels than the limit of 100,000,000; remedy: ")
        assert "OPENCV_IO_MAX_IMAGE_PIXELS" in message


def test_a_line_counts_as_the_square_it_is_fitted_into(file: Path) -> None:
    assert read(file, encode(".png", np.zeros((1, 10_000), np.uint8))).shape == (1, 10_000)
    message = refusal(file, encode(".png", np.zeros((1, 20_000), np.uint8)))
    assert message.startswith(
        "is 1 x 20000 (height, width); fitted into a square, it has more pixels than the limit of"
    )


@pytest.mark.parametrize(("text", "limit"), [("5000", 5000), ("64MB", 64 * 2**20), ("1e9", None), ("2Kb", 2048)])
def test_the_limit_is_taken_as_opencv_takes_it(monkeypatch: pytest.MonkeyPatch, text: str, limit: int | None) -> None:
    monkeypatch.setenv(PIXEL_LIMIT, text)
    if limit is None:
        with pytest.raises(UsageError, match="OPENCV_IO_MAX_IMAGE_PIXELS=1e9: expected a whole number"):
            pixel_limit()
    else:
        assert pixel_limit() == limit


def run(code: str, **environment: str) -> str:
    """Return stdout and stderr of Python code in a fresh process."""
    fresh = {k: v for k, v in os.environ.items() if not k.startswith("OPENCV_")}
    fresh |= {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))} | environment
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=fresh)
    return done.stdout + done.stderr


READ = "from pathlib import Path; from segport.reading import read_slice; print(read_slice(Path({!r})).shape)"


def test_the_user_raises_and_lowers_the_limit_by_the_variable_named(file: Path) -> None:
    file.write_bytes(encode(".png", np.zeros((1, 20_000), np.uint8)))
    assert "(1, 20000)" in run(READ.format(str(file)), OPENCV_IO_MAX_IMAGE_PIXELS="400000000")
    file.write_bytes(encode(".png", np.zeros((9, 9), np.uint8)))
    with pytest.raises(subprocess.CalledProcessError) as caught:
        run(READ.format(str(file)), OPENCV_IO_MAX_IMAGE_PIXELS="80")
    assert "holds more pixels than the limit of 80" in caught.value.stderr


def test_importing_segport_silences_opencv_but_overrides_no_choice(file: Path) -> None:
    code = "import segport, os; print(os.environ['OPENCV_LOG_LEVEL'], os.environ['OPENCV_IO_MAX_IMAGE_PIXELS'])"
    assert run(code) == "OFF 100000000\n"
    assert run(code, OPENCV_LOG_LEVEL="ERROR", OPENCV_IO_MAX_IMAGE_PIXELS="7MB") == "ERROR 7MB\n"
    data = encode(".tif", NOISE)
    file.write_bytes(data[: len(data) // 2] + data[len(data) // 2 + 40 :])
    quiet = f"from pathlib import Path; from segport.reading import read_slice\ntry: read_slice(Path({str(file)!r}))\n"
    assert run(quiet + "except Exception as error: print(type(error).__name__)") == "SliceError\n"


def test_a_jpeg_mask_is_as_large_as_the_one_it_was_made_from(tmp_path: Path) -> None:
    mask = np.zeros((64, 64), np.uint8)
    cv2.ellipse(mask, (30, 34), (17, 9), 30, 0, 360, 255, -1)
    noisy = np.asarray(read_slice(write(tmp_path / "a_mask.jpg", mask)))
    assert np.count_nonzero(noisy) > 1.2 * np.count_nonzero(mask)  # what JPEG does to edges
    for path in (tmp_path / "a_mask.jpg", write(tmp_path / "a_mask.png", mask)):
        truth = read_truth(Slice(tmp_path / "a.png", PurePath("a.png"), "a", None, path), (64, 64))
        assert np.count_nonzero(truth != (mask > 0)) <= 0.02 * np.count_nonzero(mask)
