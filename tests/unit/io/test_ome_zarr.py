"""OME-Zarr in, as pages of a stack; bad ones are errors that name what is wrong with them."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile

import kshot
from kshot.batch import label_folder, read_manifest
from kshot.errors import ImageReadError, ImageTooLargeError
from kshot.io.bands import read_bands
from kshot.io.images import image_size, read_image, read_mask
from kshot.io.paths import list_images
from kshot.io.pixel_size import PixelSize, pixel_size_of
from kshot.io.rasters import BandSelection
from tests.support.drawing import draw

zarr = pytest.importorskip("zarr")
from tests.support.zarrs import write_zarr  # noqa: E402

RAMP = np.arange(2 * 3 * 20 * 30, dtype=np.uint16).reshape(2, 3, 20, 30)
SIZES = {"z": 2.5, "y": 0.65, "x": 0.65}


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_planes_come_over_time_and_then_depth(version: str, tmp_path: Path) -> None:
    path = write_zarr(tmp_path / "a.zarr", RAMP, "tzyx", version=version, scale=SIZES)
    for page in range(1, 7):
        assert np.array_equal(read_bands(path, page)[..., 0], RAMP.reshape(6, 20, 30)[page - 1])
    assert image_size(path) == (20, 30) and pixel_size_of(path) == PixelSize(pytest.approx(0.65), "um")
    tifffile.imwrite(tmp_path / "a.tif", RAMP[1, 2])
    assert np.array_equal(read_image(path, page=6), read_image(tmp_path / "a.tif"))
    with pytest.raises(ImageReadError, match="no plane 7, it has 6"):
        read_image(path, page=7)


@pytest.mark.parametrize("axes", ["yx", "xy", "cyx", "zcyx", "tczyx"])
def test_axes_may_be_few_and_in_any_order(axes: str, tmp_path: Path) -> None:
    plane = RAMP[0, 0] // 4
    values = (plane.T if axes == "xy" else plane)[(None,) * (len(axes) - 2)]
    path = write_zarr(tmp_path / "a.zarr", values, axes)
    assert np.array_equal(read_bands(path)[..., 0], plane) and read_image(path).shape == (20, 30, 3)
    assert pixel_size_of(path) is None


def test_an_image_that_ome_zarr_wrote_is_read(tmp_path: Path) -> None:
    theirs = pytest.importorskip("ome_zarr.writer")
    group = zarr.open_group(tmp_path / "a.ome.zarr", mode="w", zarr_format=2)
    how = {"scale": {"z": 1.0, "y": 0.5, "x": 0.5}, "axes_units": dict.fromkeys("zyx", "micrometer")}
    theirs.write_image(RAMP[0], group, axes="zyx", fmt=pytest.importorskip("ome_zarr.format").FormatV04(), **how)
    assert np.array_equal(read_bands(tmp_path / "a.ome.zarr", 2)[..., 0], RAMP[0, 1])
    assert pixel_size_of(tmp_path / "a.ome.zarr") == PixelSize(pytest.approx(0.5), "um")


def test_scales_of_both_kinds_multiply_and_units_are_known(tmp_path: Path) -> None:
    path = write_zarr(tmp_path / "a.zarr", RAMP[0, 0], "yx", scale={"y": 300.0, "x": 300.0}, unit="nanometer")
    group = zarr.open_group(path)
    (about,) = group.attrs["multiscales"]
    group.attrs["multiscales"] = [about | {"coordinateTransformations": [{"type": "scale", "scale": [2, 2]}]}]
    assert pixel_size_of(path) == PixelSize(pytest.approx(0.6), "um")
    odd = write_zarr(tmp_path / "b.zarr", RAMP[0, 0], "yx", scale={"y": 3.0, "x": 3.0}, unit="parsec")
    assert pixel_size_of(odd) is None


def test_of_several_channels_one_or_three_are_chosen(tmp_path: Path) -> None:
    values = np.stack([RAMP[0, 0] // 9 * step for step in (1, 2, 3)])[None, :, None].astype(np.uint8)
    labels = {"omero": {"channels": [{"label": name} for name in ("DAPI", "GFP", "RFP")]}}
    path = write_zarr(tmp_path / "a.zarr", values, "tczyx", **labels)
    with pytest.raises(ImageReadError, match=r"3 channels \(DAPI, GFP, RFP\).*--bands"):
        read_image(path)
    assert np.array_equal(read_image(path, selection=BandSelection((2,)))[..., 0], values[0, 1, 0])
    assert np.array_equal(read_image(path, selection=BandSelection((3, 2, 1))), values[0, ::-1, 0].transpose(1, 2, 0))
    assert read_bands(path).shape == (20, 30, 3)
    with pytest.raises(ImageReadError, match="no channel 4"):
        read_image(path, selection=BandSelection((4,)))


def test_the_only_series_of_bioformats2raw_is_read(tmp_path: Path) -> None:
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=2)
    group.attrs.put({"bioformats2raw.layout": 3})
    write_zarr(tmp_path / "a.zarr" / "0", RAMP[0], "zyx", scale=SIZES)
    assert np.array_equal(read_bands(tmp_path / "a.zarr", 3)[..., 0], RAMP[0, 2])
    write_zarr(tmp_path / "a.zarr" / "1", RAMP[0], "zyx")
    with pytest.raises(ImageReadError, match="several images"):
        read_image(tmp_path / "a.zarr")


def test_what_is_no_ome_zarr_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "empty.zarr").mkdir()
    zarr.open_group(tmp_path / "plain.zarr", mode="w", zarr_format=2)
    zarr.open_group(tmp_path / "plate.zarr", mode="w", zarr_format=2).attrs.put({"plate": {}})
    for version in (2, 3):
        zarr.create_array(tmp_path / f"array{version}.zarr", data=RAMP[0, 0], zarr_format=version)
    for name, said in (("empty", "no OME-Zarr"), ("plain", "no multiscales"), ("plate", "a plate")):
        with pytest.raises(ImageReadError, match=f"{name}.zarr: .*{said}"):
            read_image(tmp_path / f"{name}.zarr")
    for version in (2, 3):
        with pytest.raises(ImageReadError, match=f"array{version}.zarr: no OME-Zarr"):
            read_image(tmp_path / f"array{version}.zarr")


@pytest.mark.parametrize(
    "damage",
    [
        {"multiscales": 3},
        {"multiscales": [{}]},
        {"multiscales": [{"axes": [], "datasets": [{"path": "0"}]}]},
        {"multiscales": [{"axes": ["y", "y", "x"], "datasets": [{"path": "0"}]}]},
        {"multiscales": [{"axes": ["q", "y", "x"], "datasets": [{"path": "0"}]}]},
        {"multiscales": [{"axes": ["z", "y", "x"], "datasets": [{"path": "7"}]}]},
        {"multiscales": [{"axes": ["z", "y", "x"], "datasets": [{"path": "../other.zarr/0"}]}]},
    ],
)
def test_a_damaged_description_is_refused_by_name(damage: dict, tmp_path: Path) -> None:
    write_zarr(tmp_path / "other.zarr", RAMP[0], "zyx")
    path = write_zarr(tmp_path / "a.zarr", RAMP[0], "zyx")
    zarr.open_group(path).attrs.put(damage)
    with pytest.raises(ImageReadError, match=r"a\.zarr: "):
        read_image(path)


def test_planes_and_chunks_over_the_limit_are_refused_unread(tmp_path: Path) -> None:
    path = write_zarr(tmp_path / "a.zarr", RAMP[0], "zyx")
    with pytest.raises(ImageTooLargeError, match=r"planes of 600 pixels.*--max-pixels"):
        read_image(path, max_pixels=599)
    group = zarr.open_group(path)
    del group["0"]
    group.create_array("0", data=RAMP[0], chunks=(3, 20, 30))
    with pytest.raises(ImageTooLargeError, match="chunks of 1,800 pixels"):
        read_image(path, max_pixels=1799)


def stack(path: Path, version: str = "0.4") -> tuple[Path, kshot.Shot]:
    _, mask = draw(3, size_hw=(120, 160))
    grey = np.random.default_rng(0).integers(40, 60, mask.shape).astype(np.uint8)
    grey[mask > 0] += 160
    write_zarr(path, np.stack([np.roll(grey, 4 * i, 1) for i in range(4)]), "zyx", version=version, scale=SIZES)
    return path, kshot.Shot(np.repeat(grey[..., None], 3, 2), mask=mask, label="disc")


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_a_run_over_a_stack_keeps_its_sizes(version: str, toy: kshot.Segmenter, tmp_path: Path) -> None:
    _, shot = stack(tmp_path / "in" / "cells.ome.zarr", version)
    out, formats = tmp_path / "out", ("png", "overlay", "stack", "areas", "coco")
    done = label_folder(toy, toy.fit([shot]), tmp_path / "in", out, formats=formats, memory=5, table="o.csv")
    assert (done.processed, done.failed, done.notes) == (4, 0, ())
    with tifffile.TiffFile(out / "stacks/cells.ome.tif") as file:
        found, about, page = file.asarray(), file.imagej_metadata, file.pages[0]
        per_micron = page.tags["XResolution"].value
    assert (about["unit"], about["slices"]) == ("micron", 4) and float(about["spacing"]) == 2.5
    assert per_micron[0] / per_micron[1] == pytest.approx(1 / 0.65, rel=1e-4)
    for index, labels in enumerate(found, start=1):
        np.testing.assert_array_equal(labels, read_mask(out / f"masks/cells.ome/page{index:04}.png", drawn=False))
    rows = list(csv.DictReader((out / "o.csv").read_text().splitlines()))
    assert {row["image"] for row in rows} <= {f"cells.ome.zarr#page{page:04}" for page in range(1, 5)}
    assert rows and all(
        float(row["area_um2"]) == pytest.approx(int(row["area_px"]) * 0.65**2, rel=1e-5) for row in rows
    )
    assert all(row["mean_1"] for row in rows)


def test_a_stack_is_an_image_of_a_folder_and_nothing_in_it_is(tmp_path: Path) -> None:
    path, _ = stack(tmp_path / "a.zarr")
    shutil.copytree(path, tmp_path / "deep" / "b.ZARR")
    (path / "thumbnail.png").write_bytes(b"")
    assert list_images(tmp_path, {".zarr"}) == [path, tmp_path / "deep" / "b.ZARR"]
    assert list_images(path) == [path] and list_images(f"{tmp_path}/*.zarr", {".zarr"}) == [path]


@pytest.mark.parametrize(("version", "chunk"), [("0.4", "0/2.0.0"), ("0.5", "0/c/2/0/0")])
@pytest.mark.parametrize("left", [5, 20, -1])
def test_a_broken_chunk_costs_its_plane(
    left: int, version: str, chunk: str, toy: kshot.Segmenter, tmp_path: Path
) -> None:
    path, shot = stack(tmp_path / "cells.zarr", version)
    (path / chunk).write_bytes((path / chunk).read_bytes()[:left])
    done = label_folder(toy, toy.fit([shot]), path, tmp_path / "out")
    assert (done.processed, done.failed) == (4, 1)
    (failure,) = done.failures
    assert (
        failure["input"] == "cells.zarr#page0003"
        and "cells.zarr: the chunks of z 2 cannot be read" in failure["reason"]
    )


def test_a_broken_stack_is_a_failed_line_beside_others(toy: kshot.Segmenter, tmp_path: Path) -> None:
    _, shot = stack(tmp_path / "in" / "a.zarr")
    (tmp_path / "in" / "b.zarr").mkdir()
    write_zarr(tmp_path / "in" / "c.zarr", draw(3)[0][..., 0], "yx")
    task = toy.fit([shot])
    done = label_folder(toy, task, tmp_path / "in", tmp_path / "out")
    assert (done.processed, done.failed, done.failures[0]["input"]) == (6, 1, "b.zarr")
    assert "c.zarr" in {record["input"] for record in read_manifest(tmp_path / "out")}
    again = label_folder(toy, task, tmp_path / "in", tmp_path / "out", resume=True)
    assert (again.skipped, again.processed) == (5, 1)


def test_without_zarr_the_way_to_get_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.zarr").mkdir()
    monkeypatch.setitem(__import__("sys").modules, "zarr", None)
    with pytest.raises(ImageReadError, match="kshot\\[zarr\\]"):
        read_image(tmp_path / "a.zarr")
