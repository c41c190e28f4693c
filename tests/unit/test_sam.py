"""Segment Anything models of random weights: shapes, batches, and what is said of one that is not there."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import kshot
from kshot import sam as sam_models
from kshot.errors import BackboneError, SettingError, WeightsNotFoundError
from kshot.methods import sam_graph
from kshot.ops.geometry import Frame, patch_centres
from kshot.refiners import sam
from tests.support.drawing import draw
from tests.support.hand import SPEC, row, support


@pytest.mark.parametrize("size_hw", [(96, 128), (30, 7), (1, 200)])
def test_masks_come_at_the_pictures_size(sam_folder: Path, size_hw: tuple[int, int]) -> None:
    model = sam_models.load(str(sam_folder))
    picture = np.random.default_rng(0).integers(0, 256, (*size_hw, 3), dtype=np.uint8)
    found = model.propose(model.encode(picture), torch.zeros(2, 3, 2), torch.ones(2, 3))
    assert tuple(found.masks.shape) == (2, 3, *size_hw) and found.masks.dtype == torch.bool
    assert tuple(found.quality.shape) == (2, 3)


def test_many_prompts_are_as_one_by_one(sam_folder: Path) -> None:
    model = sam_models.load(str(sam_folder))
    seen = model.encode(draw(3)[0])
    points, labels = torch.rand(20, 2, 2) * 90, torch.ones(20, 2)
    boxes = torch.tensor([[10.0, 10.0, 60.0, 60.0]]).repeat(20, 1)
    together = model.propose(seen, points, labels, boxes)
    single = [model.propose(seen, points[i : i + 1], labels[i : i + 1], boxes[i : i + 1]) for i in range(20)]
    torch.testing.assert_close(together.quality, torch.cat([s.quality for s in single]), atol=1e-4, rtol=1e-3)
    assert (together.masks == torch.cat([s.masks for s in single])).float().mean() > 0.999


def test_the_picture_is_prepared_as_published(sam_folder: Path) -> None:
    """Longest side 64, ImageNet's mean and deviation, zeros below: what the vision encoder is given."""
    model, given = sam_models.load(str(sam_folder)), []
    handle = model.model.vision_encoder.register_forward_pre_hook(lambda *a: given.append(a[1][0]))
    model.encode(np.full((32, 128, 3), 255, np.uint8))
    handle.remove()
    assert tuple(given[0].shape) == (1, 3, 64, 64)
    assert given[0][0, :, 0, 0].tolist() == pytest.approx([(255 - 123.675) / 58.395, (255 - 116.28) / 57.12, 2.64])
    assert not given[0][0, :, 16:].any()


def test_pictures_and_masks_are_transformers_own(sam_folder: Path) -> None:
    """Parity with the processor that works without torchvision, on a picture that is not square."""
    from transformers.models.sam.image_processing_pil_sam import SamImageProcessorPil

    processor = SamImageProcessorPil(
        size={"longest_edge": 64}, pad_size={"height": 64, "width": 64}, mask_pad_size={"height": 64, "width": 64}
    )
    model, picture, given = sam_models.load(str(sam_folder)), draw(3)[0], []
    theirs = processor(picture, return_tensors="pt")
    handle = model.model.vision_encoder.register_forward_pre_hook(lambda *a: given.append(a[1][0]))
    seen = model.encode(picture)
    handle.remove()
    torch.testing.assert_close(given[0], theirs["pixel_values"], atol=1e-5, rtol=1e-5)
    point = torch.tensor([[[64.0, 48.0]]])
    with torch.no_grad():  # 128 x 96 pixels become 64 x 48
        out = model.model(
            theirs["pixel_values"], input_points=point[None] / 2, input_labels=torch.ones(1, 1, 1, dtype=torch.long)
        )
    masks = processor.post_process_masks(out.pred_masks, theirs["original_sizes"], theirs["reshaped_input_sizes"])
    found = model.propose(seen, point, torch.ones(1, 1))
    assert torch.equal(found.masks[0], masks[0][0])
    torch.testing.assert_close(found.quality, out.iou_scores[0])


@pytest.mark.parametrize("settings", [{"method": "sam-graph"}, {"refiner": "sam"}])
def test_a_sam_that_is_not_there_is_told_at_once(settings: dict[str, str]) -> None:
    started = time.perf_counter()
    with pytest.raises(WeightsNotFoundError, match=r"models pull facebook/sam-vit.*--refiner crf"):
        kshot.Segmenter(backbone="toy", size=96, **settings)
    assert time.perf_counter() - started < 5  # a promise of one second, on a machine that may be busy


def test_another_kind_of_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit"}))
    with pytest.raises(BackboneError, match=r"type 'vit'.*facebook/sam-vit-base"):
        sam_models.load(str(tmp_path))


def test_without_the_image_sam_graph_says_what_it_needs(sam_folder: Path) -> None:
    chosen = sam_graph.Settings(model=str(sam_folder))
    task = sam_graph.Task(("c",), (support(row((1, 0), (0, 1)), [1, 0]),), SPEC, chosen)
    with pytest.raises(SettingError, match="image itself"):
        task.score(row((1, 0)))


class Told:
    """A SAM that answers every prompt with the same columns of a picture of one row of cells."""

    def __init__(self, *columns: int):
        self.columns = columns

    def encode(self, picture: np.ndarray) -> tuple[int, ...]:
        return picture.shape[:2]

    def propose(self, seen, points, labels, boxes=None, *, out_hw=None) -> sam_models.Proposals:
        mask = torch.zeros(len(points), 3, *(out_hw or seen), dtype=torch.bool)
        for column in self.columns:
            mask[..., 8 * column : 8 * column + 8] = True
        return sam_models.Proposals(mask, torch.ones(len(points), 3))


def graph_scores(monkeypatch: pytest.MonkeyPatch, grounds: int, *columns: int) -> list[float]:
    """Two cells of the class, one between the two of logit 2 (.7 - .714), and some of the background."""
    monkeypatch.setattr(sam_models, "load", lambda name: Told(*columns))
    chosen = sam_graph.Settings(kappa=2, strength=2)
    task = sam_graph.Task(("c",), (support(row((1, 0), (0, 1)), [1, 0]),), SPEC, chosen)
    between = (0.7, (1 - 0.49) ** 0.5)
    query = row((1, 0), (1, 0), between, *[(0, 1)] * grounds)
    return task.score(query, np.zeros((*query.frame.size_hw, 3), np.uint8))[1, 0].tolist()


def test_a_mask_that_raises_the_contrast_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside four cells of background the third is nearer to the class: correlations .6258 with it, .6206 without."""
    assert graph_scores(monkeypatch, 4, 0, 1, 2) == pytest.approx([2, 2, 2, -2, -2, -2, -2], abs=1e-3)


def test_a_mask_that_does_not_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside one it is not: .5476 with it, .5746 without; and half of an object is worse than all of it."""
    plain = [2, 2, 2 * (0.7 - 0.51**0.5), -2]
    assert graph_scores(monkeypatch, 1, 0, 1, 2) == pytest.approx(plain, abs=1e-3)
    assert graph_scores(monkeypatch, 1, 0) == pytest.approx(plain, abs=1e-3)


def refined(monkeypatch: pytest.MonkeyPatch, *columns: int) -> list[bool]:
    """Whether each cell of a row shows the class: two are sure of it, four barely above zero, the last is not one.

    Interpolated, half of the sixth is above zero. Squashed, the cells are .96, .05 and -.96, and .165 on average, with
    a deviation of .607. Correlations are (2.095 - 5.5 x .165) / 7 / (.365 x .607) = .76 of the five and a half,
    (1.928 - 2 x .165) / 7 / (.452 x .607) = .83 of the first two, and (.964 - .165) / 7 / (.350 x .607) = .54 of one.
    """
    monkeypatch.setattr(sam_models, "load", lambda name: Told(*columns))
    frame = Frame((8, 56), (8, 56), 8)
    plane = torch.tensor([[4.0, 4.0, 0.1, 0.1, 0.1, 0.1, -4.0]])
    logits = torch.stack([torch.zeros_like(plane), plane])
    fine = sam.refine(logits, frame, np.zeros((8, 56, 3), np.uint8), sam.Settings())
    return (fine[1] > 0)[4, 4::8].tolist()


def test_the_refiner_takes_what_raises_the_contrast(monkeypatch: pytest.MonkeyPatch) -> None:
    assert refined(monkeypatch, 0, 1) == [True] * 2 + [False] * 5


def test_the_refiner_refuses_what_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    assert refined(monkeypatch, 0) == refined(monkeypatch, 5, 6) == [True] * 5 + [False] * 2


def test_points_are_the_middles_of_cells() -> None:
    assert patch_centres(Frame((8, 16), (8, 16), 8))[0].tolist() == [[4, 4], [12, 4]]
