"""Make docs/images/demo.jpg from the demo's own output: one support, then what was found, for two of its cases.

.venv/bin/python scripts/readme_image.py
"""

import tempfile
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from kshot.demo import run_demo

HEIGHT, GAP, TEXT = 220, 12, 26
INK, PAPER = (40, 40, 40), (255, 255, 255)
TARGET = Path(__file__).resolve().parents[1] / "docs" / "images" / "demo.jpg"
CASES = {"coins": ("top-right", "bottom"), "glands": ("bottom-right", "top-right", "top-left")}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        run_demo(folder, overwrite=True)
        rows = [_row(Path(folder, case, "result"), queries) for case, queries in CASES.items()]
    width = max(row.width for row in rows)
    sheet = Image.new("RGB", (width, sum(row.height for row in rows) + TEXT + GAP), PAPER)
    write = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(16)
    write.text((2, 2), "shown", INK, font)
    write.text((rows[0].info["shown"] + GAP, 2), "found", INK, font)
    top = TEXT
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height + GAP
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(TARGET, quality=88)


def _row(result: Path, queries: tuple[str, ...]) -> Image.Image:
    paths = [result / "supports" / "0.jpg", *(result / "overlays" / f"{name}.jpg" for name in queries)]
    images = [_scaled(Image.open(path).convert("RGB")) for path in paths]
    row = Image.new("RGB", (sum(p.width + GAP for p in images) + GAP, HEIGHT), PAPER)
    left = 0
    for image in images:
        row.paste(image, (left, 0))
        left += image.width + (2 * GAP if left == 0 else GAP)
    row.info["shown"] = images[0].width + GAP
    return row


def _scaled(image: Image.Image) -> Image.Image:
    return image.resize((round(image.width * HEIGHT / image.height), HEIGHT), Image.Resampling.LANCZOS)


if __name__ == "__main__":
    main()
