"""TIFFs with damaged tags, blocks and pages, and right places for the rest."""

from collections.abc import Callable

from fuzz import files
from fuzz.damage import NUMBERS, Rng, number, shuffle, smudge
from fuzz.files import Page, Tag, Tiff

COMPRESSIONS = [
    *range(9), 32766, 32771, 32773, 32809, 32908, 32909, 32946, 34676, 34677, 34887, 34925, 50000, 50001,
]  # fmt: skip


def broken_tif(base: Callable[[], Tiff]) -> Callable[[Rng], bytes]:
    def broken(rng: Rng) -> bytes:
        tiff = base()
        for _ in range(rng.choice([1, 1, 2, 3])):
            page = rng.choice(tiff.pages)
            how = rng.choice([_tif_value, _tif_value, _tif_value, _tif_value, _tif_tag, _tif_block, _tif_pages])
            _tif_pages(rng, tiff) if how is _tif_pages else how(rng, tiff.order, page)
        return files.join_tiff(tiff)

    return broken


def _tif_value(rng: Rng, order: str, page: Page) -> None:
    """Give one tag another value, likely one that exists for it; add the tag where it is not there."""
    likely = {
        files.WIDTH: NUMBERS, files.HEIGHT: NUMBERS, files.BITS: [1, 2, 4, 8, 10, 12, 14, 16, 24, 32, 64, 65535],
        files.COMPRESSION: COMPRESSIONS, files.PHOTOMETRIC: [*range(11), 32803, 32844, 32845],
        files.SAMPLES: [0, 1, 2, 3, 4, 5, 65535], files.ROWS_PER_STRIP: NUMBERS, files.PLANES: [0, 1, 2, 3],
        files.SAMPLE_FORMAT: [0, 1, 2, 3, 4, 5, 6], files.ORIENTATION: range(10), files.TILE_WIDTH: NUMBERS,
        files.TILE_HEIGHT: NUMBERS, files.EXTRA_SAMPLES: [0, 1, 2, 3], files.OFFSETS: NUMBERS, files.COUNTS: NUMBERS,
        files.TILE_COUNTS: NUMBERS, 266: [0, 1, 2, 3], 317: [0, 1, 2, 3, 4], 330: NUMBERS,
        530: [1, 2, 4], 292: [0, 1, 4],
    }  # fmt: skip
    name = rng.choice(list(likely))
    value, old = rng.choice(likely[name]), page.find(name)
    kind = old.kind if old and old.kind in {3, 4} else rng.choice([3, 4])
    count = rng.choice([1, 3, 300]) if rng.random() < 0.2 else min(old.count, 300) if old else 1
    made = files.tag(order, name, kind, *[value % 2 ** (16 if kind == 3 else 32)] * count)
    page.tags = sorted([t for t in page.tags if t.number != name] + [made], key=lambda t: t.number)
    page.placed = page.placed and name not in {files.OFFSETS, files.TILE_OFFSETS}


def _tif_tag(rng: Rng, order: str, page: Page) -> None:
    if not page.tags:
        return
    tag, how = rng.choice(page.tags), rng.randrange(5)
    if how == 0:
        tag.kind = rng.choice([0, *range(1, 20), 65535])
    elif how == 1:
        tag.count = number(rng, 32)
    elif how == 2:
        tag.raw = smudge(rng, tag.raw)
        page.placed = page.placed and tag.number not in {files.OFFSETS, files.TILE_OFFSETS}
    elif how == 3:
        other = rng.choice([320, 330, 347, 512, 513, 34675, 34665, rng.randrange(65536)])
        page.tags.append(Tag(other, 7, 64, rng.randbytes(64)))
    else:
        shuffle(rng, page.tags)


def _tif_block(rng: Rng, order: str, page: Page) -> None:
    if page.blocks:
        i = rng.randrange(len(page.blocks))
        page.blocks[i] = smudge(rng, page.blocks[i])


def _tif_pages(rng: Rng, tiff: Tiff) -> None:
    how = rng.randrange(4)
    if how == 0:
        tiff.pages *= rng.choice([2, 3, 50])
    elif how == 1:
        tiff.pages[-1].next_page = rng.choice([8, 10, number(rng, 32)])
    elif how == 2:
        tiff.order = {"<": ">", ">": "<"}[tiff.order]
    else:
        tiff.big = not tiff.big
