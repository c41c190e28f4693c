"""Several images inferred at once: in order, alone where they have to be, and the files are those of one at a time."""

import threading
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
import torch

import kshot
from kshot.batch import label_folder
from kshot.batch.lanes import Lanes, lane_count
from kshot.batch.stages import ImageResult, overlapped
from kshot.types import Shot
from tests.support.runs import contents


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_so_many_at_once_in_order_and_with_a_share_of_the_threads() -> None:
    pair, threads = threading.Barrier(2), set[int]()

    def infer(number: int) -> int:
        pair.wait(30)  # passes only when two are inferred at once
        threads.add(torch.get_num_threads())
        return number

    assert list(overlapped(range(12), int, infer, int, lanes=Lanes(2))) == list(range(12))
    assert threads == {1} and torch.get_num_threads() == 2


@pytest.mark.usefixtures("two_threads")
def test_what_is_alone_has_all_threads_and_no_company() -> None:
    inside, alone, company = set[int](), dict[int, int](), list[set[int]]()

    def infer(number: int) -> int:
        inside.add(number)
        if number % 5 == 0:
            alone[number] = torch.get_num_threads()
            company.append(set(inside))
        inside.discard(number)
        return number

    found = overlapped(range(12), int, infer, int, lanes=Lanes(2), is_alone=lambda number: number % 5 == 0)
    assert list(found) == list(range(12))
    assert alone == {0: 2, 5: 2, 10: 2} and company == [{0}, {5}, {10}]


@pytest.mark.usefixtures("two_threads")
def test_an_error_gives_the_threads_back() -> None:
    with pytest.raises(ZeroDivisionError):
        list(overlapped(range(10), int, lambda number: 1 // (number - 3), int, lanes=Lanes(2)))
    assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("two_threads")
def test_few_images_are_inferred_one_by_one() -> None:
    assert (lane_count(1), lane_count(1000)) == (1, 2)
    torch.set_num_threads(1)
    assert lane_count(1000) == 1


def test_the_files_are_those_of_one_at_a_time(
    toy: kshot.Segmenter, shots: list[Shot], image_folder: Path, tmp_path: Path
) -> None:
    def with_lanes(inputs, stages, workers) -> Generator[ImageResult]:  # type: ignore[no-untyped-def]
        steps = stages.read, stages.infer, stages.write
        return overlapped(inputs, *steps, lanes=Lanes(3), is_alone=stages.is_alone)

    (image_folder / "broken.jpg").write_bytes(b"no image")
    task, how = toy.fit(shots), {"formats": ("png", "scores", "coco")}
    label_folder(toy, task, image_folder, tmp_path / "one", workers=0, **how)  # type: ignore[arg-type]
    label_folder(toy, task, image_folder, tmp_path / "several", engine=with_lanes, **how)  # type: ignore[arg-type]
    assert contents(tmp_path / "one") == contents(tmp_path / "several")
