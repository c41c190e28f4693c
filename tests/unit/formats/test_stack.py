"""Stacks of labels keep the physical sizes of their source, as tifffile reads them."""

from pathlib import Path

import numpy as np
import pytest
import tifffile

import kshot
from kshot.batch import label_folder
from kshot.formats.stack import _of_ome
from kshot.io.images import read_mask
from tests.support.drawing import draw


def slices(count: int = 4) -> np.ndarray:
    picture = draw(3, size_hw=(120, 160))[0].mean(2).astype(np.uint8)
    return np.stack([picture[:112, 4 * i : 4 * i + 128] for i in range(count)])


@pytest.mark.parametrize("kind", ["imagej", "ome"])
def test_a_stack_of_microns_gives_a_stack_of_microns(kind: str, toy: kshot.Segmenter, tmp_path: Path) -> None:
    if kind == "imagej":
        how = {"imagej": True, "resolution": (1 / 0.65, 1 / 0.65), "metadata": {"spacing": 2.5, "unit": "micron"}}
    else:
        sizes = {"PhysicalSizeX": 0.65, "PhysicalSizeY": 0.65, "PhysicalSizeZ": 2.5}
        how = {"ome": True, "metadata": {"axes": "ZYX", **sizes}}
    tifffile.imwrite(tmp_path / "cells.tif", slices(), **how)
    picture, mask = draw(3, size_hw=(120, 160))
    grey = np.repeat(picture.mean(2).astype(np.uint8)[..., None], 3, 2)
    task = toy.fit([kshot.Shot(grey, mask=mask, label="disc")])
    label_folder(toy, task, tmp_path / "cells.tif", tmp_path / "out", formats=("stack", "areas"), memory=5)
    with tifffile.TiffFile(tmp_path / "out/stacks/cells.tif") as file:
        found, about, page = file.asarray(), file.imagej_metadata, file.pages[0]
        per_micron = page.tags["XResolution"].value
    assert found.shape == (4, 112, 128) and found.dtype == np.uint8
    for index, labels in enumerate(found, start=1):
        np.testing.assert_array_equal(labels, read_mask(tmp_path / f"out/masks/cells/page{index:04}.png", drawn=False))
    assert (about["unit"], about["slices"]) == ("micron", 4) and float(about["spacing"]) == 2.5
    assert per_micron[0] / per_micron[1] == pytest.approx(1 / 0.65, rel=1e-4)


def test_a_slice_of_another_size_is_left_undecided(toy: kshot.Segmenter, tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "odd.tif") as file:
        for one in (slices()[0], slices()[1][:100], slices()[2]):
            file.write(one)
    task = toy.fit([kshot.Shot(*draw(3), label="disc")])
    label_folder(toy, task, tmp_path / "odd.tif", tmp_path / "out", formats=("stack",), memory=2)
    found = tifffile.imread(tmp_path / "out/stacks/odd.tif")
    assert found.shape == (3, 112, 128) and (found[1] == 255).all() and (found[0] < 2).all()


@pytest.mark.parametrize("size", ["abc", "nan", "0", "-1", "1e-400"])
def test_a_size_that_is_none_is_left_out(size: str) -> None:
    about = f'<OME><Image><Pixels PhysicalSizeX="{size}" PhysicalSizeZ="2.5" PhysicalSizeXUnit="nm"/></Image></OME>'
    assert _of_ome(about) == {"spacing": "2.5", "unit": "nm"}
    assert _of_ome(about[:-3]) == {} == _of_ome("<!DOCTYPE a [<!ENTITY b 'c'>]><OME>&b;</OME>")
