"""What a run over a film writes: an overlay film, areas over time, and objects with numbers."""

import csv
import io
from pathlib import Path

import av
import pytest
from defusedxml.ElementTree import parse
from PIL import Image

import kshot
from kshot.batch import label_folder
from kshot.io.images import read_mask
from tests.support.drawing import draw
from tests.support.films import film

FORMATS = ("png", "film", "areas", "mot", "cvat-tracks", "coco")


@pytest.fixture(scope="module")
def run(toy: kshot.Segmenter, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("film")
    picture, mask = draw(3, size_hw=(120, 160))
    (place / "sub").mkdir()
    film(place / "sub/walk.mp4", [picture[:112, 4 * i : 4 * i + 112] for i in range(8)])
    task = toy.fit([kshot.Shot(picture, mask=mask, label="disc")])
    label_folder(toy, task, place, place / "out", formats=FORMATS, every=2)
    return place / "out"


def test_the_overlay_film_shows_each_frame_that_was_labelled(run: Path) -> None:
    with av.open(str(run / "films/sub/walk.mp4")) as file:
        shown = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
        assert len(shown) == 4 and float(file.streams.video[0].average_rate) == 5  # every second one of ten a second
    assert shown[0].shape == (112, 112, 3)
    mask = read_mask(run / "masks/sub/walk/000000.png", drawn=False) == 1
    reds = shown[0][..., 0][mask]
    assert mask.sum() > 1000 and 70 < reds.mean() < 140  # red 200, under half a blue of red 0


def test_areas_have_the_frames_their_times_and_the_pixels_of_the_masks(run: Path) -> None:
    rows = list(csv.DictReader(io.StringIO((run / "areas.csv").read_text())))
    assert [(row["film"], row["frame"], row["seconds"]) for row in rows] == [
        ("sub/walk.mp4", str(n), str(n / 10)) for n in (0, 2, 4, 6)
    ]
    for row in rows:
        mask = read_mask(run / f"masks/sub/walk/{int(row['frame']):06}.png", drawn=False)
        assert int(row["area_px"]) == (mask == 1).sum() > 0
        assert float(row["fraction"]) == pytest.approx((mask == 1).mean(), abs=1e-6)


def test_mot_and_cvat_number_the_same_objects(run: Path) -> None:
    lines = [line.split(",") for line in (run / "mot/sub/walk/gt/gt.txt").read_text().splitlines()]
    assert {int(line[0]) for line in lines} == {1, 3, 5, 7} and {line[7] for line in lines} == {"1"}
    assert (run / "mot/sub/walk/gt/labels.txt").read_text() == "disc\n"
    for frame, _, left, top, width, height, *_ in lines:
        mask = read_mask(run / f"masks/sub/walk/{int(frame) - 1:06}.png", drawn=False) == 1
        assert mask[int(top) : int(top) + int(height), int(left) : int(left) + int(width)].any()
    tracks = parse(run / "cvat_tracks/sub/walk.xml").getroot().findall("track")
    assert {track.get("id") for track in tracks} == {line[1] for line in lines}
    shapes = [
        (track.get("id"), shape.get("frame")) for track in tracks for shape in track if shape.get("outside") == "0"
    ]
    assert sorted(shapes) == sorted((line[1], str(int(line[0]) - 1)) for line in lines)


def test_a_folder_in_order_is_a_film_too(toy: kshot.Segmenter, tmp_path: Path) -> None:
    picture, mask = draw(3, size_hw=(120, 160))
    (tmp_path / "slices").mkdir()
    for index in range(3):
        Image.fromarray(picture[:, 4 * index : 4 * index + 111]).save(tmp_path / f"slices/{index}.png")
    task = toy.fit([kshot.Shot(picture, mask=mask, label="disc")])
    label_folder(toy, task, tmp_path / "slices", tmp_path / "out", formats=("film", "areas", "mot"), sequence=True)
    with av.open(str(tmp_path / "out/films/sequence.mp4")) as file:
        assert [(f.width, f.height) for f in file.decode(video=0)] == [(110, 120)] * 3  # sides are even
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out/areas.csv").read_text())))
    assert [(row["frame"], row["seconds"]) for row in rows] == [("0", ""), ("1", ""), ("2", "")]


def test_a_broken_film_keeps_the_frames_until_the_fault(toy: kshot.Segmenter, tmp_path: Path) -> None:
    picture, mask = draw(3)
    path = film(tmp_path / "film.avi", [draw(seed)[0] for seed in range(8)])
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    task = toy.fit([kshot.Shot(picture, mask=mask, label="disc")])
    summary = label_folder(toy, task, path, tmp_path / "out", formats=("film", "areas"))
    frames = summary.processed - summary.failed
    assert 0 < frames < 8
    assert len((tmp_path / "out/areas.csv").read_text().splitlines()) == 1 + frames
    with av.open(str(tmp_path / "out/films/film.mp4")) as file:
        assert sum(1 for _ in file.decode(video=0)) == frames
