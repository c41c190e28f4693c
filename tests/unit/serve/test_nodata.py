"""The page shows and writes no class where a TIFF has no data."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import kshot
from kshot.io.images import read_mask
from tests.support.drawing import draw
from tests.support.served import client, disc, mask_of, pictures, settled

rasterio = pytest.importorskip("rasterio")
from tests.support.scenes import write_scene  # noqa: E402


def test_nothing_is_found_where_there_is_no_data(toy: kshot.Segmenter, tmp_path: Path) -> None:
    folder = pictures(tmp_path / "images", 2)
    middle = int(np.argwhere(disc(0))[:, 1].mean())
    valid = np.arange(disc(0).shape[1]) >= middle
    with rasterio.open(write_scene(folder / "2.tif", draw(0)[0]), "r+") as file:
        file.write_mask(np.broadcast_to(valid, disc(0).shape))  # the disc's other half is there, and hidden
    with client(folder, tmp_path / "out", toy) as served:
        served.post("/api/classes", json={"name": "disc"})
        file = BytesIO()
        Image.fromarray(disc(0).astype(np.uint8)).save(file, "PNG")
        served.put("/api/images/0/mask", content=file.getvalue(), headers={"Content-Type": "image/png"})
        settled(served)
        shown = mask_of(served, 2)
        assert shown[:, middle:].any() and not shown[:, :middle].any()
        served.post("/api/images/2/accept", json={})
    written = read_mask(tmp_path / "out" / "masks" / "2.png", drawn=False)
    assert written.any() and not written[:, :middle].any()
