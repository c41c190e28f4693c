"""The background prior: what it does to densities by hand, its weight, and how it is saved."""

import math
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import kshot
from kshot.backbones.base import load_backbone
from kshot.cli import app
from kshot.errors import BackboneMismatchError, SettingError
from kshot.io.tensor_file import FILE, Learned, read_learned, write_learned
from kshot.methods import auto, density, prototype
from kshot.methods.auto.background_prior import prior_weight, shipped_prior
from tests.support.hand import SPEC, around, row, support

PLAIN = density.Settings(kappa=1.0, affinity_sharpness=0.0, self_support_weight=0.0)
WEIGHTS = Path(__file__).parents[5] / "shared/weights/vit-tiny-patch16-224"


def background(*means: tuple[float, float], shares: list[float] | None = None, method: str = "density") -> Learned:
    facts = {"method": method, "identity": "hand", "backbone": "hand"}
    told = torch.tensor(shares or [1 / len(means)] * len(means))
    return Learned(facts, {"means": torch.tensor(means).half(), "shares": told})


def test_the_prior_counts_as_so_many_supports() -> None:
    """Cosines of the query (1, 0): 1 with the class, 0 with the own background, 0.5 and -0.25 with the prior."""
    shown, query = support(row((1, 0), (0, 1)), [1, 0]), row((1, 0))
    beside = background((0.5, 0.0), (-0.25, 0.0), shares=[0.75, 0.25])
    universal = 0.75 * math.exp(-0.5) + 0.25 * math.exp(-1.25)
    for count, shots, part in ((0.0, 1, 0.0), (1.0, 1, 1 / 2), (1.0, 4, 1 / 5), (3.0, 2, 3 / 5)):
        settings = density.Settings(
            kappa=1.0, affinity_sharpness=0.0, self_support_weight=0.0, background_prior_weight=count
        )
        task = density.Task(("a",), (shown,) * shots, SPEC, settings, beside)
        expected = -math.log((1 - part) * math.exp(-1) + part * universal)
        assert float(task.score(query)[1, 0, 0]) == pytest.approx(expected, abs=1e-4)


def test_without_any_background_the_prior_is_all_of_it() -> None:
    whole, query = support(row((1, 0)), [1]), row((1, 0), (0, 1))
    task = density.Task(("a",), (whole,), SPEC, PLAIN, background((0.0, 1.0)))
    assert task.score(query)[1, 0].tolist() == pytest.approx([1.0, -1.0])


def test_it_has_weight_where_backgrounds_are_of_many_places() -> None:
    everything = background((0.1, 0.0), (0.0, 0.1), (-0.1, 0.0), (0.0, -0.1))
    here, there = support(row((1, 0), (0, 1)), [1, 0]), support(row((1, 0), (0, -1)), [1, 0])
    assert prior_weight([here, there], everything, 20.0) > 0.99
    again = support(row((1, 0), (0, 1)), [1, 0])
    assert prior_weight([here, again], everything, 20.0) < 0.01
    assert prior_weight([here], everything, 20.0) == 1  # its queries tell
    assert prior_weight([support(row((1, 0)), [1])], everything, 20.0) == 1


def test_a_query_moves_the_threshold_where_images_do_not_look_alike() -> None:
    shown, learned = around(40, turned=True), background((0.1, 0.0), (0.0, 0.1), (-0.1, 0.0), (0.0, -0.1))
    never = torch.tensor([0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1e6])  # no query looks like the support
    beside = Learned(learned.facts, dict(learned.tensors) | {"pairs": never})
    still, moved = (
        auto.Task(
            ("a",),
            (shown,),
            SPEC,
            auto.Settings(query_threshold_shift=lean, calibrate_scores=False),
            beside,
        )
        for lean in (0.0, 0.5)
    )
    plane = still.score(shown.features)[1].flatten()
    best, worst = plane.topk(1).values.mean(), plane.quantile(0.2)  # 40 cells: a fortieth of the image is one
    assert moved.fitted.prior_weight == 1
    expected = plane - 0.5 * (best + worst) / 2
    torch.testing.assert_close(moved.score(shown.features)[1].flatten(), expected, atol=1e-4, rtol=1e-4)
    two = auto.Task(("a",), (shown, shown), SPEC, auto.Settings(calibrate_scores=False), beside)
    assert float(two._query_shift(two.fitted, shown.features, two.score(shown.features))) == 0


def test_it_can_be_switched_off() -> None:
    shown, beside = around(40, turned=True), background((0.9, 0.0))
    off = auto.Task(("a",), (shown,), SPEC, auto.Settings(background_prior=False), beside)
    never = auto.Task(("a",), (shown,), SPEC, auto.Settings())
    assert torch.equal(off.score(shown.features), never.score(shown.features))


def test_the_embedded_encoder_has_one_and_strangers_have_none() -> None:
    identity = load_backbone("tiny", device="cpu").identity
    found = shipped_prior(identity)
    assert found is not None and found.facts["identity"] == identity and shipped_prior("0" * 64) is None
    assert float(found.tensors["shares"].sum()) == pytest.approx(1, abs=1e-4)
    assert float(found.tensors["means"].float().norm(dim=1).max()) <= 1.001


@pytest.mark.skipif(not WEIGHTS.is_dir(), reason="needs ../shared/weights")
def test_vit_tiny_has_one() -> None:
    identity = load_backbone(str(WEIGHTS), device="cpu").identity
    found = shipped_prior(identity)
    assert found is not None and found.facts["identity"] == identity


def test_one_of_ones_own_goes_from_the_command_into_a_task_file(
    support_folder: Path, tmp_path: Path, toy: kshot.Segmenter
) -> None:
    out, file = tmp_path / "background", tmp_path / "disc.kshot"
    run = CliRunner().invoke(
        app, ["train", "background", str(support_folder), "--backbone", "toy", "--clusters", "8", "-o", str(out)]
    )
    assert run.exit_code == 0, run.output
    assert f"{FILE}: " in run.output and f"method.weights={out}" in run.output.replace("\n", "")
    own = ["--backbone", "toy", "--size", "96", "--set", f"method.weights={out}"]
    run = CliRunner().invoke(app, ["fit", str(support_folder), "-o", str(file), *own])
    assert run.exit_code == 0, run.output
    fitted = kshot.load_task(file)
    (out / FILE).unlink()
    again = kshot.load_task(file)
    assert (
        again.learned is not None and again.learned.facts["method"] == "density" and again.digest() == fitted.digest()
    )
    image = next(path for path in sorted(support_folder.rglob("*.png")) if "mask" not in path.as_posix())
    features = toy.features(kshot.io.images.read_image(image))
    torch.testing.assert_close(again.score(features), fitted.score(features))


def test_what_is_not_for_this_method_or_backbone_is_refused(tmp_path: Path) -> None:
    shown = support(row((1, 0), (0, 1)), [1, 0])
    with pytest.raises(SettingError, match="learned for the method prototype"):
        auto.Task(("a",), (shown,), SPEC, auto.Settings(), background((1.0, 0.0), method="prototype"))
    with pytest.raises(SettingError, match="learned for the method density"):
        prototype.Task(("a",), (shown,), SPEC, prototype.Settings(), background((1.0, 0.0)))
    stranger = background((1.0, 0.0))
    write_learned(tmp_path / FILE, Learned(dict(stranger.facts) | {"identity": "x" * 64}, stranger.tensors))
    assert read_learned(tmp_path).facts["identity"] == "x" * 64
    with pytest.raises(BackboneMismatchError):
        auto.Task(("a",), (shown,), SPEC, auto.Settings(weights=str(tmp_path)))
    for name in ("auto", "density"):
        with pytest.raises(SettingError, match="no weights here"):
            kshot.Segmenter(backbone="toy", method=name, method_settings={"weights": str(tmp_path / "nowhere")})
    shares_alone = Learned(stranger.facts, {"shares": torch.ones(1)})
    with pytest.raises(SettingError, match="lack 'means' and hold shares"):
        density.Task(("a",), (shown,), SPEC, density.Settings(), shares_alone)


def test_the_weight_does_not_depend_on_the_order_of_supports() -> None:
    supports = [around(columns, turned=columns % 2 == 0) for columns in range(12, 21)]
    everything = background((0.1, 0.0), (0.0, 0.1), (-0.1, 0.0), (0.0, -0.1))
    assert prior_weight(supports, everything, 20.0) == prior_weight(supports[::-1], everything, 20.0)


def test_a_prior_without_weight_costs_nothing() -> None:
    shown = support(row((1, 0), (0, 1)), [1, 0])
    settings = density.Settings(background_prior_weight=0.0)
    assert len(density.fit([shown], settings, background((0.5, 0.0))).tokens) == 2
