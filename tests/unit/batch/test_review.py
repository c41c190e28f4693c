"""Pages and frames that a person accepted or corrected come back as supports."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import kshot
from kshot.batch import label_folder, read_manifest
from kshot.batch.review import effect
from kshot.errors import ImageReadError, MaskError, SupportError
from kshot.io.images import read_image, read_mask
from kshot.io.pages_and_frames import read_images
from kshot.io.paths import file_of
from kshot.io.rasters import BandSelection
from kshot.types import Shot, SupportSet
from tests.support.commands import TOY, run
from tests.support.drawing import draw
from tests.support.films import film, scan


@pytest.fixture
def labelled(toy: kshot.Segmenter, shots: list[Shot], tmp_path: Path) -> Path:
    """A run over a photo, three pages and the frames 0, 5 and 10 of a film, below a folder of its own."""
    folder = tmp_path / "images"
    (folder / "sub").mkdir(parents=True)
    Image.fromarray(draw(7)[0]).save(folder / "a.png")
    scan(folder / "scan.tif")
    film(folder / "sub" / "walk.mp4", [draw(seed)[0] for seed in range(3, 15)])
    label_folder(toy, toy.fit(shots), folder, tmp_path / "out", every=5)
    return tmp_path / "out"


def accept(out: Path, *names: str) -> Path:
    for name in names:
        (out / "accepted" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(out / "masks" / name, out / "accepted" / name)
    return out / "accepted"


def test_pages_and_frames_come_with_their_pictures(labelled: Path) -> None:
    folder = accept(labelled, "a.png", "scan/page0002.png", "sub/walk/000005.png", "sub/walk/000010.png")
    found = {Path(shot.mask).relative_to(folder).as_posix(): shot for shot in SupportSet.from_folder(folder)}
    assert list(found) == ["a.png", "scan/page0002.png", "sub/walk/000005.png", "sub/walk/000010.png"]
    assert found["a.png"].image == labelled.parent / "images" / "a.png"
    assert np.array_equal(found["scan/page0002.png"].image, draw(1)[0])
    for name, seed in (("000005", 8), ("000010", 13)):  # frame n shows draw(3 + n), which a codec does not keep exactly
        seen = found[f"sub/walk/{name}.png"].image.astype(float)
        errors = [np.abs(seen - draw(other)[0]).mean() for other in range(3, 15)]
        assert int(np.argmin(errors)) == seed - 3


def test_the_corrected_mask_is_what_is_learned(labelled: Path) -> None:
    folder = accept(labelled, "scan/page0003.png")
    corrected = np.zeros_like(read_mask(folder / "scan/page0003.png", drawn=False))
    corrected[10:40, 10:40] = 1
    Image.fromarray(corrected).save(folder / "scan/page0003.png")
    (shot,) = SupportSet.from_folder(folder)
    assert np.array_equal(read_mask(shot.mask, drawn=False), corrected) and tuple(shot.label) == (1,)


def test_fit_takes_them_and_says_the_effect_on_the_other_pages_and_frames(
    labelled: Path, support_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(labelled.parent)
    accept(labelled, "scan/page0001.png", "sub/walk/000000.png")
    said = json.loads(run("fit", support_folder, "--add", "out/accepted", "-o", "b.kshot", "--json", *TOY).stdout)
    plain = json.loads(run("fit", support_folder, "-o", "a.kshot", "--json", *TOY).stdout)
    assert said["supports"] == plain["supports"] + 2
    assert said["effect"][0]["images"] == 5  # of seven, without the two that were accepted


def test_the_effect_counts_what_can_still_be_read(labelled: Path, toy: kshot.Segmenter, shots: list[Shot]) -> None:
    task, images = toy.fit(shots), labelled.parent / "images"
    every = effect(toy, task, labelled, images)
    before = [record["uncertainty"] for record in read_manifest(labelled)]
    assert every and every.images == 7 and every.before == pytest.approx(np.mean(before))
    assert every.after == pytest.approx(every.before, abs=1e-4)  # the same task
    (images / "sub" / "walk.mp4").write_bytes(b"no film")
    (images / "a.png").unlink()
    rest = effect(toy, task, labelled, images)
    assert rest and rest.images == 3


def test_what_is_gone_or_of_another_size_is_named(labelled: Path) -> None:
    folder = accept(labelled, "sub/walk/000010.png", "scan/page0001.png")
    images = labelled.parent / "images"
    film(images / "sub" / "walk.mp4", [draw(3)[0]] * 4)
    with pytest.raises(ImageReadError, match=r"walk\.mp4: has no frame 10"):
        SupportSet.from_folder(folder)
    (images / "sub" / "walk.mp4").unlink()
    with pytest.raises(SupportError, match=r"000010\.png: its image sub/walk\.mp4 is no longer"):
        SupportSet.from_folder(folder)
    (folder / "sub" / "walk" / "000010.png").unlink()
    Image.fromarray(np.ones((5, 6), np.uint8)).save(folder / "scan" / "page0001.png")
    with pytest.raises(MaskError, match=r"page0001\.png, of scan\.tif#page0001, is 6 x 5 pixels"):
        SupportSet.from_folder(folder)


def test_pages_are_read_with_the_bands_of_the_run(toy: kshot.Segmenter, shots: list[Shot], tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    scan(images / "scan.tif")
    selection = BandSelection(bands=(3, 2, 1))
    turned = kshot.Segmenter(backbone="toy", size=96, device="cpu", bands=selection.bands)
    label_folder(turned, turned.fit(shots), images, tmp_path / "out")
    folder = accept(tmp_path / "out", "scan/page0002.png")
    Image.fromarray(draw(1)[1].astype(np.uint8)).save(folder / "scan" / "page0002.png")
    (shot,) = SupportSet.from_folder(folder)
    assert np.array_equal(shot.image, draw(1)[0][..., ::-1])
    assert np.array_equal(shot.image, read_image(images / "scan.tif", page=2, selection=selection))


def test_a_film_is_decoded_once_for_all_of_its_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = film(tmp_path / "film.mp4", [draw(seed)[0] for seed in range(6)])
    from kshot.io import pages_and_frames

    opened: list[Path] = []
    real = pages_and_frames.frames
    monkeypatch.setattr(pages_and_frames, "frames", lambda path: opened.append(path) or real(path))
    found = dict(read_images({"film.mp4#000004": path, "film.mp4#000001": path}, BandSelection()))
    assert opened == [path] and list(found) == ["film.mp4#000001", "film.mp4#000004"]


def test_names_of_pieces_say_their_file() -> None:
    assert file_of("sub/a.TIFF#page0012") == "sub/a.TIFF" and file_of("a.mp4#000010") == "a.mp4"
    assert file_of("a#000010.png") == "a#000010.png" and file_of("a.jpg#000010") == "a.jpg#000010"
