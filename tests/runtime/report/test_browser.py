"""The report in a real browser: what is clicked changes what is seen, and nothing is asked of any network."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import cv2
import numpy as np
import pytest

from helpers import infer, square, write

HOSTILE = ["<script>alert(1)<script>", "quote\"'&amp;", "חולה", "患者 ä", "left\u202eright"]
RED, GREEN = (255, 64, 64), (64, 255, 64)


@pytest.fixture(scope="module")
def page_of(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the page of a run over patients of any name; each has a square that grows, and slice 4 has none."""
    root = tmp_path_factory.mktemp("report")
    for name in ["plain", *HOSTILE]:
        folder = root / "in" / name
        for n in range(1, 6):
            pixels = square(64, low=16, high=16 if n == 4 else 24 + 4 * n)
            pixels[..., 0] = 90
            write(folder / f"s_{n}.png", pixels)
            write(folder / f"s_{n}_mask.png", square(64, low=16, high=30)[..., 1])
    (root / "in/plain/s_6.png").write_bytes(b"no picture")
    os.rename(os.fsencode(root / "in/plain"), os.fsencode(root / "in") + b"/pl\xe9in")  # noqa: PTH104  (bytes)
    assert infer(root / "in", "--out", root / "out", "--report", "--score", "--probabilities") == 1
    return root / "out/report/index.html"


@contextmanager
def opened(chromium: Any, path: Path, address: str = "", **options: Any) -> Iterator[Any]:
    """Yield the page, and assert that it complained of nothing and asked for nothing but its own files."""
    context = chromium.new_context(viewport={"width": 1200, "height": 800}, **options)
    page, problems = context.new_page(), list[str]()
    page.on("console", lambda message: problems.append(message.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("dialog", lambda dialog: problems.append(dialog.message))
    ours = path.parent.as_uri() + "/"
    page.on("request", lambda request: None if request.url.startswith(ours) else problems.append(request.url))
    page.goto(path.as_uri() + address)
    yield page
    context.close()
    assert problems == []


def seen(page: Any) -> np.ndarray:
    """Return what the large picture shows, RGB."""
    page.wait_for_timeout(250)
    data = page.locator("#view").screenshot()
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1].astype(int)


def shows(picture: np.ndarray, colour: tuple[int, int, int], off: int = 60) -> int:
    return int((abs(picture - colour).max(axis=2) < off).sum())


def pixel(picture: np.ndarray, x: int, y: int) -> np.ndarray:
    """Return what is seen of a pixel of a slice of 64 x 64."""
    height, width = picture.shape[:2]
    side = min(height, width)
    return picture[(height - side) // 2 + side * (2 * y + 1) // 128, (width - side) // 2 + side * (2 * x + 1) // 128]


def open_patient(page: Any, name: str) -> None:
    page.locator(".card a", has_text=re.compile(f"^{re.escape(name)}$")).click()
    page.locator("#now", has_text="Slice").wait_for()


def test_what_is_clicked_and_pressed_changes_what_is_seen(chromium: Any, page_of: Path) -> None:
    with opened(chromium, page_of) as page:
        open_patient(page, "חולה")
        assert page.locator("#now").inner_text() == "Slice 5"  # the largest tumour
        page.keyboard.press("Home")
        small = seen(page)
        assert shows(small, RED) > 200
        assert shows(small, GREEN) > 100
        page.locator("#slider").evaluate("s => { s.value = 2; s.dispatchEvent(new Event('input')); }")
        assert page.locator("#now").inner_text() == "Slice 3"
        large = seen(page)
        assert shows(large, RED) > 1.2 * shows(small, RED)
        page.keyboard.press(" ")
        assert shows(seen(page), RED) == 0
        page.keyboard.press(" ")
        page.keyboard.press("t")
        assert shows(seen(page), GREEN) == 0
        page.keyboard.press("f")
        assert (abs(seen(page) - large).max(axis=2) > 20).mean() > 0.05  # filled
        page.keyboard.press("f")
        page.keyboard.press("-")
        assert shows(seen(page), RED, off=20) < shows(large, RED, off=20)


def test_channels_are_switched_and_the_heat_map_is_laid_over(chromium: Any, page_of: Path) -> None:
    with opened(chromium, page_of, f"#{quote('חולה')}/3") as page:
        page.locator("#now", has_text="Slice 3").wait_for()
        page.keyboard.press(" ")
        page.keyboard.press("t")
        flair = seen(page)
        middle, corner = pixel(flair, 26, 26), pixel(flair, 4, 4)
        assert abs(middle - 200).max() < 6
        assert corner.max() < 6
        page.keyboard.press("1")
        pre = seen(page)
        assert abs(pixel(pre, 26, 26) - 90).max() < 6
        assert abs(pixel(pre, 4, 4) - 90).max() < 6
        page.keyboard.press("4")
        red, green, blue = pixel(seen(page), 26, 26)
        assert max(abs(red - 90), abs(green - 200), blue) < 6
        page.keyboard.press("2")
        page.keyboard.press("p")
        red, green, blue = pixel(seen(page), 26, 26)
        assert red > blue + 40  # turbo's warm end
        page.keyboard.press("p")
        page.keyboard.press("[")
        assert abs(pixel(seen(page), 26, 26) - 150).max() < 6


def test_links_lead_to_a_slice_and_the_address_follows(chromium: Any, page_of: Path) -> None:
    with opened(chromium, page_of, f"#{quote('患者 ä')}/2") as page:
        page.locator("#now", has_text="Slice 2").wait_for()
        assert page.locator("#name").inner_text() == "患者 ä"
        page.keyboard.press("ArrowRight")
        page.wait_for_url("**/3")
        page.keyboard.press("n")
        assert page.locator("#now").inner_text() == "Slice 4"
        assert "no tumour, between slices" in page.locator("#reasons").inner_text()
        page.keyboard.press("Escape")
        page.locator("#overview").wait_for(state="visible")
        page.go_back()
        page.locator("#now", has_text="Slice 4").wait_for()


def test_names_are_shown_as_text_whatever_is_in_them(chromium: Any, page_of: Path) -> None:
    with opened(chromium, page_of) as page:
        names = page.locator(".card h3").all_text_contents()
        assert set(names) == {*HOSTILE[:4], "left\\u202eright", "pl\\udce9in"}
        for name in names:
            open_patient(page, name)
            assert page.locator("#name").inner_text() == name
            page.keyboard.press("Escape")
            page.locator("#overview").wait_for(state="visible")


def test_a_failed_slice_is_listed_first_and_says_why(chromium: Any, page_of: Path) -> None:
    with opened(chromium, page_of) as page:
        first = page.locator(".eyes > li").first
        assert "slice 6" in first.inner_text()
        assert "no mask: cannot be decoded" in first.inner_text()
        first.locator("a").click()
        page.locator("#problem", has_text="cannot be decoded").wait_for()


def test_patients_are_sorted_and_found(chromium: Any, page_of: Path) -> None:
    with opened(chromium, page_of) as page:
        page.select_option("#sort", "doubts")
        # not inner_text: a card off the screen is not laid out, and has none
        assert page.locator(".card h3").first.text_content() == "pl\\udce9in"
        page.fill("#find", "患")
        assert page.locator(".card:visible").count() == 1
        assert page.locator("#matches").inner_text() == "1 of 6"


def test_the_policy_forbids_what_is_not_the_reports_own(chromium: Any, page_of: Path, tmp_path: Path) -> None:
    """The gate of the others: a page that asks for something else is caught."""
    text = page_of.read_text(encoding="utf-8").replace("</body>", '<img src="http://127.0.0.1:9/x.png"></body>')
    (page_of.parent / "other.html").write_text(text, encoding="utf-8")
    with (
        pytest.raises(AssertionError, match="Content Security Policy"),
        opened(chromium, page_of.with_name("other.html")) as page,
    ):
        page.wait_for_timeout(200)
    (page_of.parent / "other.html").unlink()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 360])
def test_axe_finds_no_serious_problem(chromium: Any, page_of: Path, scheme: str, width: int) -> None:
    from axe_playwright_python.sync_playwright import Axe

    context = chromium.new_context(color_scheme=scheme, viewport={"width": width, "height": 800}, bypass_csp=True)
    page = context.new_page()
    page.goto(page_of.as_uri())
    for detail in page.locator("summary").all():
        detail.click()
    found = [Axe().run(page)]
    open_patient(page, "חולה")
    page.keyboard.press("n")
    found.append(Axe().run(page))
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page is wider than the screen"
    context.close()
    serious = [v for one in found for v in one.response["violations"] if v["impact"] in ("serious", "critical")]
    assert serious == [], [(v["id"], [n["html"] for n in v["nodes"]]) for v in serious]
    assert all(one.response["passes"] for one in found)
