"""Numbers that somebody worked out with a pencil: features of two dimensions, grids of a few cells."""

import math

import pytest
import torch

from kshot.errors import SettingError, TaskError
from kshot.methods import clip_dinoiser, density, image_prompt, prototype, text
from kshot.methods.base import Support, settings_of
from kshot.ops.geometry import FeatureMap
from tests.support.hand import SPEC, row, support


def test_prototype_is_20_times_the_difference_of_cosines() -> None:
    task = prototype.Task(("c",), (support(row((1, 0), (0, 1)), [1, 0]),), SPEC)
    scores = task.score(row((1, 0), (0, 1), (0.6, 0.8)))
    assert scores[0].tolist() == [[0, 0, 0]]
    assert scores[1, 0].tolist() == pytest.approx([20, -20, 20 * (0.6 - 0.8)])


def test_prototype_weighs_cells_by_their_part() -> None:
    """Half of the second cell is class: prototypes (1, .5) and (0, .5), so (2, 1) / sqrt 5 and (0, 1)."""
    task = prototype.Task(("c",), (support(row((1, 0), (0, 1)), [1, 0.5]),), SPEC)
    assert float(task.score(row((1, 0)))[1, 0, 0]) == pytest.approx(20 * (2 / math.sqrt(5) - 0), rel=1e-5)


def test_prototypes_of_two_ways_share_the_background() -> None:
    features = row((1, 0), (0, 1), (-1, 0))
    task = prototype.Task(("a", "b"), (support(features, [1, 0, 0], [0, 1, 0]),), SPEC)
    scores = task.score(row((0.8, 0.6)))
    assert scores[:, 0, 0].tolist() == pytest.approx([0, 20 * (0.8 + 0.8), 20 * (0.6 + 0.8)], rel=1e-5)


def one_estimate(**changes: float) -> density.Settings:
    return density.Settings(**({"kappa": 2.0, "self_support_weight": 0.0, "pool": 1} | changes))


def test_density_is_the_log_ratio_of_kernels() -> None:
    """One cell each: kappa (cos to the class - cos to the background) = 2 (1 - 0)."""
    task = density.Task(("c",), (support(row((1, 0), (0, 1)), [1, 0]),), SPEC, one_estimate())
    assert float(task.score(row((1, 0)))[1, 0, 0]) == pytest.approx(2, abs=1e-5)
    assert float(task.score(row((0.6, 0.8)))[1, 0, 0]) == pytest.approx(2 * (0.6 - 0.8), abs=1e-5)


def test_density_does_not_count_cells() -> None:
    """Three background cells alike count as one."""
    task = density.Task(("c",), (support(row((1, 0), *[(0, 1)] * 3), [1, 0, 0, 0]),), SPEC, one_estimate())
    assert float(task.score(row((1, 0)))[1, 0, 0]) == pytest.approx(2, abs=1e-5)


def test_density_thins_background_and_keeps_its_weight() -> None:
    """Eight background cells, four like (0, 1) and four like (-1, 0) by turns: every second one says the same."""
    cells = row((1, 0), *[(0, 1), (0, 1), (-1, 0), (-1, 0)] * 2)
    masks = [1.0, *[0.0] * 8]
    whole, thin = (
        density.Task(("c",), (support(cells, masks),), SPEC, one_estimate(max_background_tokens=n)) for n in (8, 2)
    )
    assert len(whole.fitted.tokens) == 9 and len(thin.fitted.tokens) == 5
    query = row((0.6, 0.8))
    torch.testing.assert_close(whole.score(query), thin.score(query))


def test_density_passes_over_what_is_ignored() -> None:
    """The third cell would pull the background to (1, 0); ignored, it does not."""
    features = row((1, 0), (0, 1), (1, 0))
    task = density.Task(("c",), (support(features, [1, 0, 0], valid_mask=[1, 1, 0]),), SPEC, one_estimate())
    assert float(task.score(row((1, 0)))[1, 0, 0]) == pytest.approx(2, abs=1e-5)


def test_density_averages_over_alike_cells() -> None:
    """Two cells at a right angle, affinity ln 3: weights 3 : 1, ratios 2 and -2, so 1 and -1."""
    settings = one_estimate(affinity_sharpness=math.log(3))
    task = density.Task(("c",), (support(row((1, 0), (0, 1)), [1, 0]),), SPEC, settings)
    assert task.score(row((1, 0), (0, 1)))[1, 0].tolist() == pytest.approx([1, -1], abs=1e-5)


def test_density_averages_over_pooled_cells() -> None:
    """The same two cells pooled: one key between them, so both get the mean of 2 and -2."""
    task = density.Task(("c",), (support(row((1, 0), (0, 1)), [1, 0]),), SPEC, one_estimate(pool=2))
    assert task.score(row((1, 0), (0, 1)))[1, 0].tolist() == pytest.approx([0, 0], abs=1e-5)


def test_density_second_estimate() -> None:
    """One cell, first ratio 2; its labels are 1 / (1 + e^7) and the rest, and so are the masses."""
    settings = density.Settings(kappa=2.0)
    task = density.Task(("c",), (support(row((1, 0), (0, 1)), [1, 0]),), SPEC, settings)
    background = 1 / (1 + math.exp(7))
    shares = [0.5 * mass / (mass + 40) for mass in (background, 1 - background)]
    densities = [(1 - s) * d + s for s, d in zip(shares, (math.exp(-2), 1.0), strict=True)]
    expected = math.log(densities[1] / densities[0])
    assert float(task.score(row((1, 0)))[1, 0, 0]) == pytest.approx(expected, abs=1e-4)


def words(*cells: tuple[float, float], ways: int = 1, way: int | None = None, weight: float = 1.0) -> Support:
    """Words as embeddings: of a class, or of the background when no way is named."""
    features = row(*cells)
    masks = torch.zeros(ways, *features.grid_hw)
    if way is not None:
        masks[way] = 1
    return Support(features, masks, torch.ones(features.grid_hw), "text", weight)


def test_text_is_a_softmax_against_all_background_words() -> None:
    """Cosines .6 with the class, .8 and -.6 with two background words."""
    supports = (words((1, 0), way=0), words((0, 1), (-1, 0)))
    task = text.Task(("c",), supports, SPEC, text.Settings(scale=1))
    expected = 0.6 - math.log(math.exp(0.8) + math.exp(-0.6))
    assert float(task.score(row((0.6, 0.8)))[1, 0, 0]) == pytest.approx(expected, abs=1e-5)
    probabilities = task.score(row((0.6, 0.8)))[:, 0, 0].softmax(0)
    share = math.exp(0.6) / (math.exp(0.6) + math.exp(0.8) + math.exp(-0.6))
    assert float(probabilities[1]) == pytest.approx(share, abs=1e-5)


def test_a_background_word_that_is_the_class_itself_is_left_out() -> None:
    supports = (words((1, 0), way=0), words((0, 1), (1, 0)))
    task = text.Task(("c",), supports, SPEC, text.Settings(scale=1))
    assert float(task.score(row((1, 0)))[1, 0, 0]) == pytest.approx(1, abs=1e-5)


def test_words_and_images_mix_in_class_and_background() -> None:
    """Class (1, 0) and (0, 1) to (1, 1) / sqrt 2, background (-1, 0) and (0, -1) to (-1, -1) / sqrt 2."""
    image = support(row((0, 1), (0, -1)), [1, 0])
    task = text.Task(("c",), (image, words((1, 0), way=0), words((-1, 0))), SPEC, text.Settings(scale=1))
    assert float(task.score(row((1, 0)))[1, 0, 0]) == pytest.approx(math.sqrt(2), abs=1e-5)


def test_weights_of_shots_shift_the_mixture() -> None:
    """A text of weight 3 beside an image of weight 1: (3, 1) / sqrt 10, and the background by the same shares."""
    image = support(row((0, 1), (0, -1)), [1, 0])
    heavy = (image, words((1, 0), way=0, weight=3), words((-1, 0)))
    task = text.Task(("c",), heavy, SPEC, text.Settings(scale=1))
    assert task.fitted.classes[0].tolist() == pytest.approx([3 / math.sqrt(10), 1 / math.sqrt(10)], abs=1e-5)
    assert task.fitted.backgrounds[0][0].tolist() == pytest.approx([-3 / math.sqrt(10), -1 / math.sqrt(10)], abs=1e-5)


def test_each_class_is_compared_with_a_background_like_itself() -> None:
    """One class of words alone, one of an image alone: neither meets the other's background."""
    image = support(row((0, 1), (0, -1)), [0, 0], [1, 0])
    supports = (image, words((1, 0), ways=2, way=0), words((-1, 0), ways=2))
    scores = text.Task(("said", "seen"), supports, SPEC, text.Settings(scale=1)).score(row((0.8, 0.6)))
    assert scores[:, 0, 0].tolist() == pytest.approx([0, 0.8 + 0.8, 0.6 + 0.6], abs=1e-5)


def test_image_prompt_puts_zero_half_way() -> None:
    """Whole image (1, 1) / sqrt 2, background (0, 1): 70.7 and -29.3 less their middle, 20.7, are 50 and -50."""
    features = row((1, 0), (0, 1))
    image = Support(features, torch.tensor([[[1.0, 0.0]]]), torch.ones(1, 2), "image")
    task = image_prompt.Task(("c",), (image,), SPEC)
    assert task.score(features)[1, 0].tolist() == pytest.approx([50, -50], abs=1e-3)


def test_image_prompt_takes_the_backbones_token() -> None:
    """Token (.6, .8), background (0, 1): the cells score 60 - 0 and 80 - 100, less the middle of 20: 40 and -40."""
    plain = row((1, 0), (0, 1))
    features = FeatureMap(plain.features, plain.frame, "hand", torch.tensor([0.6, 0.8]))
    image = Support(features, torch.tensor([[[1.0, 0.0]]]), torch.ones(1, 2), "image")
    task = image_prompt.Task(("c",), (image,), SPEC)
    assert task.score(plain)[1, 0].tolist() == pytest.approx([40, -40], abs=1e-3)
    mean = image_prompt.Task(("c",), (image,), SPEC, image_prompt.Settings(token=False))
    assert mean.score(plain)[1, 0].tolist() == pytest.approx([50, -50], abs=1e-3)


def test_image_prompt_with_a_mask_is_a_prototype_at_scale_100() -> None:
    task = image_prompt.Task(
        ("c",), (support(row((1, 0), (0, 1)), [1, 0]),), SPEC, image_prompt.Settings(prompt="mask")
    )
    assert task.score(row((0.6, 0.8)))[1, 0].tolist() == pytest.approx([100 * (0.6 - 0.8)], abs=1e-3)


def test_without_any_background_zero_is_a_cosine() -> None:
    task = text.Task(("c",), (support(row((1, 0)), [1]),), SPEC)
    assert task.score(row((1, 0), (0, 1)))[1, 0].tolist() == pytest.approx([50, -50], abs=1e-3)


def test_clip_dinoiser_takes_unsure_cells_that_are_no_object() -> None:
    """Cells of logit 4 (.8 - .6) = .8, p = .69 < .99: off where objectness is .5 or less, to ln(.01 / .99)."""
    supports = (words((1, 0), way=0), words((0, 1)))
    task = clip_dinoiser.Task(("c",), supports, SPEC, clip_dinoiser.Settings(scale=4))
    plain = row((0.8, 0.6), (0.8, 0.6), (0.6, 0.8))
    query = FeatureMap(plain.features, plain.frame, "hand", objectness=torch.tensor([[0.5, 0.6, 0.9]]))
    scores = task.score(query)
    assert scores[1, 0].tolist() == pytest.approx([math.log(0.01 / 0.99), 0.8, -0.8], abs=1e-4)
    assert scores[0].tolist() == [[0, 0, 0]]
    assert task.score(plain)[1, 0].tolist() == pytest.approx([0.8, 0.8, -0.8], abs=1e-4)


def test_clip_dinoiser_believes_a_class_that_is_sure() -> None:
    """At scale 100 the same cell has logit 20, p above .99: no objectness is needed."""
    task = clip_dinoiser.Task(("c",), (words((1, 0), way=0), words((0, 1))), SPEC)
    plain = row((0.8, 0.6))
    query = FeatureMap(plain.features, plain.frame, "hand", objectness=torch.zeros(1, 1))
    assert float(task.score(query)[1, 0, 0]) == pytest.approx(20, abs=1e-3)


def test_scores_that_are_not_finite_are_refused() -> None:
    class Overflows(prototype.Task):
        def _score(self, features):
            return super()._score(features) * math.inf

    task = Overflows(("a",), (support(row((1, 0), (0, 1)), [1, 0]),), SPEC)
    with pytest.raises(TaskError, match="prototype: its scores are not finite"):
        task.score(row((1, 0)))
    with pytest.raises(SettingError, match="scale of prototype is nan; expected a finite number"):
        settings_of(prototype, {"scale": math.nan})
