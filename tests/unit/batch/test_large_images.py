"""Images that are read, predicted and written window by window: the same as whole, without their memory."""

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

import kshot
from kshot.annotations.statistics import RunningStatistics, record_of
from kshot.batch import label_folder, large_images, read_manifest
from kshot.features.tiles import Tiling
from kshot.formats import kshot_run
from kshot.io.images import read_mask
from kshot.ops.components import StripComponents, count_components
from kshot.report import thumbnails
from kshot.types import Shot, Thresholds
from tests.support.drawing import draw

TILES = Tiling(128, 32)
FORMATS = ("png", "overlay", "geotiff")


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    """A GeoTIFF of 300 x 420 pixels with a place on earth, stored in tiles."""
    path = tmp_path / "scenes" / "scene.tif"
    path.parent.mkdir()
    write_tif(path, draw(3, (300, 420))[0])
    return path


def write_tif(path: Path, picture: np.ndarray, **more) -> None:
    height, width, count = picture.shape
    how = {"crs": "EPSG:32632", "transform": rasterio.Affine(2, 0, 500_000, 0, -2, 5_500_000), "compress": "deflate"}
    how |= {"tiled": True, "blockxsize": 64, "blockysize": 64, "dtype": picture.dtype} | more
    with rasterio.open(path, "w", driver="GTiff", height=height, width=width, count=count, **how) as file:
        file.write(picture.transpose(2, 0, 1))


@pytest.fixture
def small_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read in windows what has more than 60,000 pixels, such as the scene."""
    monkeypatch.setattr(large_images, "FROM_PIXELS", 60_000)


def test_windows_give_what_the_whole_gives(
    toy: kshot.Segmenter, shots: list[Shot], scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = toy.fit(shots)
    label_folder(toy, task, scene, tmp_path / "whole", tiling=TILES, formats=FORMATS)
    monkeypatch.setattr(large_images, "FROM_PIXELS", 60_000)
    label_folder(toy, task, scene, tmp_path / "parts", tiling=TILES, formats=FORMATS)
    (whole,), (parts,) = read_manifest(tmp_path / "whole"), read_manifest(tmp_path / "parts")
    assert parts["outputs"].pop("geotiff") == "geotiff/scene.tif" and whole == parts
    masks = [read_mask(tmp_path / run / "masks" / "scene.png", drawn=False) for run in ("whole", "parts")]
    assert np.array_equal(*masks) and masks[0].any()
    with (
        rasterio.open(tmp_path / "whole/geotiff/scene.tif") as one,
        rasterio.open(tmp_path / "parts/geotiff/scene.tif") as two,
    ):
        assert np.array_equal(one.read(), two.read()) and np.array_equal(two.read(1), masks[1])
        assert one.crs == two.crs == "EPSG:32632" and one.transform == two.transform
        assert one.colormap(1) == two.colormap(1) and json.loads(two.tags()["classes"]) == {"1": "disc"}


def test_tiles_far_from_their_rims_agree_with_the_untiled_prediction(
    toy: kshot.Segmenter, shots: list[Shot], scene: Path, tmp_path: Path, small_limit: None
) -> None:
    task, picture = toy.fit(shots), draw(3, (300, 420))[0]
    label_folder(toy, task, scene, tmp_path / "out", tiling=TILES)
    found = read_mask(tmp_path / "out/masks/scene.png", drawn=False)
    # The first tile alone decides its first 96 - 32 rows and columns, as if it were an image of its own.
    alone = toy.predict(task, picture[:128, :128]).mask
    assert np.array_equal(found[:64, :64], alone[:64, :64])
    untiled = toy.predict(task, picture).mask
    assert (found == untiled).mean() > 0.97


def test_a_run_in_windows_is_resumed_and_repeated_to_the_byte(
    toy: kshot.Segmenter, shots: list[Shot], scene: Path, tmp_path: Path, small_limit: None
) -> None:
    task = toy.fit(shots)
    for out in ("one", "two"):
        label_folder(toy, task, scene, tmp_path / out, tiling=TILES, formats=FORMATS)
    (tmp_path / "two/geotiff/scene.tif").unlink()
    again = label_folder(toy, task, scene, tmp_path / "two", tiling=TILES, formats=FORMATS, resume=True)
    assert (again.processed, again.skipped) == (1, 0)
    assert label_folder(toy, task, scene, tmp_path / "two", tiling=TILES, formats=FORMATS, resume=True).skipped == 1
    for path in ("masks/scene.png", "overlays/scene.jpg", "geotiff/scene.tif", "manifest.jsonl"):
        assert (tmp_path / "one" / path).read_bytes() == (tmp_path / "two" / path).read_bytes()
    assert not list((tmp_path / "two").rglob(".kshot-*"))


def test_formats_of_the_whole_folder_and_readers_follow(
    toy: kshot.Segmenter, shots: list[Shot], scene: Path, tmp_path: Path, small_limit: None
) -> None:
    label_folder(toy, toy.fit(shots), scene, tmp_path / "out", tiling=TILES, formats=("png", "coco"))
    tree = kshot_run.FORMAT.read_annotations(tmp_path / "out")
    assert tree is not None
    (image,) = tree.images
    assert image.path == scene and (tmp_path / "out/coco.json").is_file()
    assert image.annotations[0].area == read_manifest(tmp_path / "out")[0]["classes"]["disc"]["pixels"]


def test_the_overlay_is_a_small_copy(
    toy: kshot.Segmenter, shots: list[Shot], scene: Path, tmp_path: Path, small_limit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kshot.formats.overlay.PREVIEW_SIDE", 140)
    label_folder(toy, toy.fit(shots), scene, tmp_path / "out", tiling=TILES)
    with Image.open(tmp_path / "out/overlays/scene.jpg") as overlay:
        assert overlay.size == (140, 100)


def test_pixels_of_an_absent_class_go_to_the_next_best(
    toy: kshot.Segmenter, shots: list[Shot], scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On red pixels "disc", which is absent everywhere, is ahead of "field", and both are ahead of nothing."""
    picture, mask = draw(2)
    task = toy.fit([*shots, Shot(picture, mask=~mask, label="field")])

    def without_disc(self, task, features, picture):
        red = picture[..., 0] > picture[..., 1]
        scores = np.where(red, np.float32([[[0.2]], [[0.5]], [[0.3]]]), np.float32([[[0.8]], [[0.1]], [[0.1]]]))
        return kshot.Prediction.from_scores(scores, task.classes, {"disc": 0.1, "field": 0.9})

    monkeypatch.setattr(type(toy), "decide", without_disc)
    label_folder(toy, task, scene, tmp_path / "whole", tiling=TILES)
    monkeypatch.setattr(large_images, "FROM_PIXELS", 60_000)
    label_folder(toy, task, scene, tmp_path / "parts", tiling=TILES)
    whole, parts = (read_mask(tmp_path / run / "masks/scene.png", drawn=False) for run in ("whole", "parts"))
    assert np.array_equal(whole, parts) and set(np.unique(parts)) == {0, 2}
    assert read_manifest(tmp_path / "whole") == read_manifest(tmp_path / "parts")


def test_windows_lift_the_pixel_limit_and_nothing_else_does(shots: list[Shot], scene: Path, tmp_path: Path) -> None:
    careful = kshot.Segmenter(backbone="toy", size=96, max_pixels=50_000)
    task = careful.fit(shots)
    refused = label_folder(careful, task, scene, tmp_path / "untiled")
    assert refused.failed == 1 and "--tile" in refused.failures[0]["reason"]
    assert label_folder(careful, task, scene, tmp_path / "tiled", tiling=TILES).processed == 1
    png = tmp_path / "large.png"
    Image.fromarray(draw(3, (300, 420))[0]).save(png)
    assert label_folder(careful, task, png, tmp_path / "png", tiling=TILES).failed == 1


@pytest.mark.parametrize(
    ("layout", "tile", "says"),
    [
        ({"tiled": False, "blockysize": 300}, 128, "gdal_translate"),
        ({}, 256, "take smaller tiles"),
    ],
)
def test_what_would_fill_the_memory_after_all_is_refused(
    toy: kshot.Segmenter, shots: list[Shot], tmp_path: Path, small_limit: None, layout: dict, tile: int, says: str
) -> None:
    path = tmp_path / "scene.tif"
    if layout:
        layout |= {"blockxsize": 420}
    write_tif(path, draw(3, (300, 420))[0], **layout)
    summary = label_folder(toy, toy.fit(shots), path, tmp_path / "out", tiling=Tiling(tile, 32))
    assert summary.failed == 1 and says in summary.failures[0]["reason"]


def test_a_header_that_promises_the_sky_is_refused(toy: kshot.Segmenter, shots: list[Shot], tmp_path: Path) -> None:
    path = tmp_path / "sky.tif"
    how = {
        "tiled": True,
        "blockxsize": 512,
        "blockysize": 512,
        "sparse_ok": True,
        "transform": rasterio.Affine.scale(2),
    }
    with rasterio.open(path, "w", driver="GTiff", height=70_000, width=70_000, count=1, dtype="uint8", **how):
        pass
    summary = label_folder(toy, toy.fit(shots), path, tmp_path / "out", tiling=TILES)
    assert summary.failed == 1 and "4,900,000,000" in summary.failures[0]["reason"]


def test_a_file_cut_off_in_the_middle_is_a_failed_line_and_leaves_nothing(
    toy: kshot.Segmenter, shots: list[Shot], scene: Path, tmp_path: Path, small_limit: None
) -> None:
    data = scene.read_bytes()
    scene.write_bytes(data[: len(data) * 2 // 3])
    out = tmp_path / "out"
    summary = label_folder(toy, toy.fit(shots), scene, out, tiling=TILES, formats=FORMATS)
    assert summary.failed == 1 and summary.failures[0]["reason"].startswith("scene.tif: ")
    assert not [path for path in out.rglob("*") if path.is_file() and path.parent != out]


@pytest.mark.parametrize("formats", [("png", "scores")])
def test_formats_that_need_all_scores_are_refused(
    toy: kshot.Segmenter, shots: list[Shot], scene: Path, tmp_path: Path, small_limit: None, formats: tuple[str, ...]
) -> None:
    summary = label_folder(toy, toy.fit(shots), scene, tmp_path / "out", tiling=TILES, formats=formats)
    assert summary.failed == 1 and "--format scores" in summary.failures[0]["reason"]


@settings(deadline=None, max_examples=80)
@given(
    labels=arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.integers(0, 2)),
    cuts=st.lists(st.integers(1, 11), max_size=4),
)
def test_components_of_strips_are_those_of_the_whole(labels: np.ndarray, cuts: list[int]) -> None:
    """Counts, and what is left of the labels under thresholds, which `Prediction.filtered` says of the whole."""
    rows = (np.arange(len(labels)) % 3 / 4).astype(np.float32)
    own = np.where(labels > 0, rows[:, None], 0).astype(np.float32)
    planes = np.stack([np.zeros_like(own), *(np.where(labels == index, own, 0) for index in (1, 2))])
    whole = kshot.Prediction(labels, planes, {"a": 1.0, "b": 1.0}, ("a", "b")).filtered(min_area=3, min_score=0.25)
    strips = np.split(labels, sorted({cut for cut in cuts if cut < len(labels)}))
    found = StripComponents()
    for strip, scores in zip(strips, np.split(own, np.cumsum([len(s) for s in strips])[:-1]), strict=True):
        found.add(strip, scores)
    table = found.join()
    assert table.counts(table.areas > 0) == count_components(labels)
    passing = table.passing(3, 0.25)
    left = np.concatenate(list(found.sieve(strips, table, passing)))
    assert np.array_equal(left, whole.mask) and table.counts(passing) == count_components(whole.mask)


def test_components_by_hand() -> None:
    found = StripComponents()
    found.add(np.array([[1, 0, 1], [1, 0, 1]], np.uint8))
    found.add(np.array([[0, 1, 0], [2, 0, 0]], np.uint8))  # a diagonal joins both arms
    found.add(np.array([[0, 2, 1]], np.uint8))
    table = found.join()
    assert sorted(zip(table.labels.tolist(), table.areas.tolist(), strict=True)) == [(1, 1), (1, 5), (2, 2)]
    assert table.counts(table.areas > 0) == {1: 2, 2: 1}


def test_a_mask_without_background_has_one_component() -> None:
    assert count_components(np.ones((8, 8), np.uint8)) == {1: 1}


def test_figures_of_strips_are_those_of_the_whole(toy: kshot.Segmenter, shots: list[Shot]) -> None:
    found = toy.predict(toy.fit(shots), draw(4)[0])
    statistics = RunningStatistics(found.classes)
    for rows in (slice(0, 40), slice(40, 41), slice(41, 96)):
        statistics.add(found.mask[rows], found.scores[:, rows])
        statistics.add_kept(found.mask[rows])
    outputs, table = {"png": "masks/a.png"}, statistics.components.join()
    two = statistics.record(found.size_hw, found.present, outputs, table, table.areas > 0)
    one = record_of(found, outputs)
    assert one.pop("uncertainty") == pytest.approx(two.pop("uncertainty"), abs=2e-4)
    assert one["classes"]["disc"].pop("score") == pytest.approx(two["classes"]["disc"].pop("score"), abs=2e-4)
    assert one == two


def test_the_report_shows_a_large_scene_without_reading_it_whole(scene: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = thumbnails.thumbnail(scene, 210)
    monkeypatch.setattr(thumbnails, "_LARGE", 60_000)
    monkeypatch.setattr(thumbnails, "read_image", lambda path: pytest.fail(f"{path} was read whole"))
    small = thumbnails.thumbnail(scene, 210)
    assert whole is not None and small is not None and small.size == whole.size == (210, 150)
    assert np.abs(np.asarray(small, float) - np.asarray(whole, float)).mean() < 15  # one averages the noise


@pytest.mark.parametrize(
    "thresholds",
    [
        Thresholds(min_presence=1.0),
        Thresholds(min_area=0),
        Thresholds(min_area="2%"),
        Thresholds(min_score=0.7, min_area=9),
    ],
)
def test_windows_take_all_thresholds(
    toy: kshot.Segmenter,
    shots: list[Shot],
    scene: Path,
    tmp_path: Path,
    thresholds: Thresholds,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    task = toy.fit(shots)
    label_folder(toy, task, scene, tmp_path / "whole", tiling=TILES, thresholds=thresholds)
    monkeypatch.setattr(large_images, "FROM_PIXELS", 60_000)
    label_folder(toy, task, scene, tmp_path / "parts", tiling=TILES, thresholds=thresholds)
    (whole,), (parts,) = read_manifest(tmp_path / "whole"), read_manifest(tmp_path / "parts")
    assert whole == parts and "mask_sha256" in parts
    masks = [read_mask(tmp_path / run / "masks" / "scene.png", drawn=False) for run in ("whole", "parts")]
    assert np.array_equal(*masks) and masks[0].any() == (thresholds.min_presence is None)
