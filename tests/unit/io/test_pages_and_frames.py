"""Files that hold several images: pages and frames are images of their own, and one's damage is one's own."""

import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import kshot
from kshot.batch import Shard, label_folder, read_manifest
from kshot.batch.inputs import Input, Inputs, split
from kshot.errors import ImageReadError, ImageTooLargeError, SettingError
from kshot.io import videos
from kshot.io.images import read_mask
from kshot.types import Shot
from tests.support.drawing import draw
from tests.support.films import film, scan

av = pytest.importorskip("av")


@pytest.fixture
def grey_film(tmp_path: Path) -> Path:
    """25 frames; frame n is grey of 40 + 8 n."""
    return film(tmp_path / "grey.mp4", [np.full((64, 96, 3), 40 + 8 * n, np.uint8) for n in range(25)])


@pytest.fixture
def task(toy: kshot.Segmenter, shots: list[Shot]) -> kshot.Task:
    return toy.fit(shots)


@pytest.mark.parametrize(("every", "expected"), [(1, list(range(25))), (10, [0, 10, 20]), (100, [0])])
def test_each_nth_frame_comes_with_its_number_and_its_picture(grey_film: Path, every: int, expected: list[int]) -> None:
    found = [(frame.number, frame.image(10_000)) for frame in videos.frames(grey_film, every)]
    assert [number for number, _ in found] == expected
    for number, picture in found:
        assert picture.shape == (64, 96, 3) and abs(picture.mean() - (40 + 8 * number)) < 4


def test_frames_keep_the_pixel_limit(grey_film: Path) -> None:
    with pytest.raises(ImageTooLargeError, match="96 x 64"):
        next(videos.frames(grey_film)).image(6_000)


def test_a_film_held_upright_is_shown_upright(tmp_path: Path) -> None:
    picture = np.zeros((64, 96, 3), np.uint8)
    picture[:32, :48] = 255
    data = bytearray(film(tmp_path / "telephone.mp4", [picture] * 2).read_bytes())
    # The track header's matrix (ISO/IEC 14496-12, 8.3.2) of a telephone: a quarter turn clockwise, instead of none.
    matrix = data.index(struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30), data.index(b"tkhd"))
    data[matrix : matrix + 36] = struct.pack(">9i", 0, 65536, 0, -65536, 0, 0, 64 << 16, 0, 1 << 30)
    (tmp_path / "telephone.mp4").write_bytes(data)
    shown = next(videos.frames(tmp_path / "telephone.mp4")).image(10_000)
    assert shown.shape == (96, 64, 3) and shown[5, -5].min() > 200 and shown[5, 5].max() < 50


def test_frames_of_a_folder_get_results_that_mirror_it(toy: kshot.Segmenter, task: kshot.Task, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    (folder / "sub").mkdir(parents=True)
    film(folder / "sub" / "walk.mp4", [draw(3)[0]] * 12)
    Image.fromarray(draw(4)[0]).save(folder / "a.png")
    scan(folder / "scan.tif")
    out = tmp_path / "out"
    summary = label_folder(toy, task, folder, out, every=5, formats=("png", "overlay", "coco"))
    names = [
        "a.png",
        *(f"scan.tif#page000{n}" for n in (1, 2, 3)),
        *(f"sub/walk.mp4#0000{n}" for n in ("00", "05", "10")),
    ]
    assert [record["input"] for record in read_manifest(out)] == names
    assert (summary.processed, summary.failed, summary.total) == (7, 0, 7)
    masks = sorted(path.relative_to(out / "masks").as_posix() for path in (out / "masks").rglob("*.png"))
    assert masks == [
        "a.png",
        *(f"scan/page000{n}.png" for n in (1, 2, 3)),
        *(f"sub/walk/0000{n}.png" for n in ("00", "05", "10")),
    ]
    second = read_mask(out / "masks/scan/page0002.png", drawn=False)
    assert np.array_equal(second, toy.predict(task, draw(1)[0]).mask)


def test_a_video_is_resumed_where_it_stopped(toy: kshot.Segmenter, task: kshot.Task, tmp_path: Path) -> None:
    path = film(tmp_path / "film.mp4", [draw(seed)[0] for seed in (3, 4, 5, 6)])

    def stop(record: dict, through: int, total: int) -> None:
        if through == 2:
            raise KeyboardInterrupt

    assert label_folder(toy, task, path, tmp_path / "out", progress=stop).interrupted
    again = label_folder(toy, task, path, tmp_path / "out", resume=True)
    assert (again.processed, again.skipped, again.total) == (2, 2, 4)
    label_folder(toy, task, path, tmp_path / "whole")
    for name in ["manifest.jsonl", *(f"masks/film/00000{n}.png" for n in range(4))]:
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    with pytest.raises(SettingError, match="--every"):
        label_folder(toy, task, path, tmp_path / "out", every=2, resume=True)


def test_frames_stream_and_are_forgotten(grey_film: Path, tmp_path: Path) -> None:
    jobs = Inputs(grey_film, tmp_path / "out", every=3, limit=4)
    given = [job.name for job in jobs if job]
    assert given == [f"grey.mp4#{n:06}" for n in (0, 3, 6, 9)] and len(jobs) == 4
    assert all(job.frame is None for job in jobs.files)


def test_a_shard_holds_a_whole_film_or_nothing_of_it(grey_film: Path, tmp_path: Path) -> None:
    parts = [{j.name for j in Inputs(grey_film, tmp_path / "out", shard=Shard(n, 2)) if j} for n in (1, 2)]
    assert not parts[0] & parts[1] and sorted(map(len, parts)) == [0, 25]


def test_a_page_that_is_cut_off_fails_alone(toy: kshot.Segmenter, task: kshot.Task, tmp_path: Path) -> None:
    path = scan(tmp_path / "scan.tif")
    path.write_bytes(path.read_bytes()[:-2_000])
    summary = label_folder(toy, task, path, tmp_path / "out")
    assert (summary.processed, summary.failed) == (3, 1)
    assert summary.failures[0]["input"] == "scan.tif#page0003"


def test_a_directory_that_is_cut_off_fails_alone(toy: kshot.Segmenter, task: kshot.Task, tmp_path: Path) -> None:
    whole = scan(tmp_path / "scan.tif").read_bytes()
    second = int.from_bytes(whole[4:8], "little")
    for _ in range(1):
        count = int.from_bytes(whole[second : second + 2], "little")
        second = int.from_bytes(whole[second + 2 + 12 * count : second + 6 + 12 * count], "little")
    (tmp_path / "scan.tif").write_bytes(whole[: second + 20])
    summary = label_folder(toy, task, tmp_path / "scan.tif", tmp_path / "out")
    assert (summary.processed, summary.failed) == (2, 1)
    assert summary.failures[0]["input"] == "scan.tif#page0002"


@pytest.mark.parametrize(
    ("kind", "says"), [("text", "cannot be decoded"), ("empty", "cannot be decoded"), ("sound", "only audio")]
)
def test_what_is_no_film_is_one_failed_line(
    toy: kshot.Segmenter, task: kshot.Task, tmp_path: Path, kind: str, says: str
) -> None:
    path = tmp_path / "film.mp4"
    path.write_bytes(b"no film at all" * 20 if kind == "text" else b"")
    if kind == "sound":
        with av.open(str(path), "w") as file:
            stream = file.add_stream("aac", rate=8000)
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate = 8000
            file.mux(stream.encode(frame))
            file.mux(stream.encode())
    summary = label_folder(toy, task, path, tmp_path / "out")
    assert summary.failed == 1 and summary.failures[0]["input"] == "film.mp4" and says in summary.failures[0]["reason"]


def test_a_film_that_ends_long_before_its_time_is_said_to_be_cut_off(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its decoder finds no fault: it takes the end of the file for the end of the film."""
    path = film(tmp_path / "film.mkv", [draw(seed)[0] for seed in range(24)])
    assert len(list(videos.frames(path))) == 24 and not caplog.text
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    kept = len(list(videos.frames(path)))
    assert 0 < kept < 18 and "of the 2.4 seconds" in caplog.text and f"the {kept} frames before are kept" in caplog.text


@pytest.mark.parametrize("kind", ["mkv", "mp4"])
def test_a_film_without_frames_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"none.{kind}"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        file.start_encoding()
    with pytest.raises(ImageReadError, match=rf"none\.{kind}: .*(decoded|without a frame)"):
        list(videos.frames(path))


def test_frames_before_the_damage_are_done(toy: kshot.Segmenter, task: kshot.Task, tmp_path: Path) -> None:
    path = film(tmp_path / "film.avi", [draw(seed)[0] for seed in range(8)])
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    summary = label_folder(toy, task, path, tmp_path / "out")
    assert 1 <= summary.processed - summary.failed < 8


def test_without_pyav_the_error_names_the_extra(grey_film: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    (job,) = split(Input("grey.mp4", grey_film, "grey"))
    assert isinstance(job.problem, ImageReadError) and "kshot[video]" in str(job.problem)


@pytest.mark.parametrize("every", [0, -3])
def test_impossible_steps_are_refused(grey_film: Path, tmp_path: Path, every: int) -> None:
    with pytest.raises(SettingError, match="1"):
        Inputs(grey_film, tmp_path / "out", every=every)
