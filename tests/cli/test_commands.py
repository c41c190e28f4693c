"""The commands, as a person types them."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

import kshot
from kshot.cli import app, main
from kshot.cli.config import find_config, read_config
from kshot.errors import SettingError
from kshot.formats.scores import read as read_scores
from kshot.io.images import read_mask
from tests.support import tiny_clip
from tests.support.commands import TOY, commands, run
from tests.support.drawing import draw


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def as_process(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kshot", *(str(a) for a in arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | {"HF_HUB_OFFLINE": ""})


def test_label_a_folder(support_folder: Path, image_folder: Path) -> None:
    result = run("label", support_folder, image_folder, "-o", "out", *TOY)
    assert "4 processed" in result.stdout and "1 empty, 0 failed" in result.stdout
    assert "disc (2); read from" in result.stderr
    assert Path("out/masks/sub/a.png").is_file() and Path("out/overlays/b.jpg").is_file()


def test_fit_then_predict_equals_label(support_folder: Path, image_folder: Path) -> None:
    run("label", support_folder, image_folder, "-o", "one", *TOY)
    assert "1 class (disc), 2 support images" in run("fit", support_folder, "-o", "t.kshot", *TOY).stdout
    run("predict", "t.kshot", image_folder, "-o", "two")
    for name in ("a", "b", "sub/a", "none"):
        assert Path(f"one/masks/{name}.png").read_bytes() == Path(f"two/masks/{name}.png").read_bytes()


def test_settings_of_method_and_refiner_are_set(support_folder: Path, image_folder: Path) -> None:
    chosen = ["--method", "mixture", "--refiner", "crf", "--set", "method.prototypes=1", "--set", "refiner.steps=2"]
    run("label", support_folder, image_folder, "-o", "out", *TOY, *chosen)
    run("fit", support_folder, "-o", "t.kshot", *TOY, "--method", "mixture", "--set", "method.kappa=15")
    assert kshot.load_task("t.kshot").settings.kappa == 15
    run("predict", "t.kshot", image_folder, "-o", "two", "--refiner", "edges", "--set", "refiner.band=2")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kappa=15", "expected method.NAME=VALUE"),
        ("method.kapa=15", "density has no setting kapa; it has kappa"),
        ("method.kappa=high", "kappa of density is a number, such as 20.0; got 'high'"),
        ("method.pool=1.5", "pool of density is a whole number"),
    ],
)
def test_a_setting_that_is_none_is_refused(support_folder: Path, text: str, message: str) -> None:
    result = run("fit", support_folder, "-o", "t.kshot", *TOY, "--method", "density", "--set", text, code=1)
    assert isinstance(result.exception, SettingError) and message in str(result.exception)


def test_a_task_keeps_its_methods_settings(support_folder: Path, image_folder: Path) -> None:
    run("fit", support_folder, "-o", "t.kshot", *TOY)
    result = run("predict", "t.kshot", image_folder, "-o", "out", "--set", "method.kappa=15", code=1)
    assert isinstance(result.exception, SettingError)


def test_fit_can_grow_a_task(support_folder: Path) -> None:
    run("fit", support_folder, "-o", "t.kshot", *TOY)
    Image.fromarray(draw(9)[0]).save("more.png")
    run("fit", "--box", "blob=more.png:30,20,80,70", "--add-to", "t.kshot", "-o", "u.kshot")
    grown = kshot.load_task("u.kshot")
    assert grown.classes == ("disc", "blob") and len(grown.supports) == 3


def test_json_is_one_document_on_stdout(support_folder: Path, image_folder: Path) -> None:
    summary = json.loads(run("label", support_folder, image_folder, "-o", "out", *TOY, "--json").stdout)
    assert summary["processed"] == 4 and summary["failed"] == 0 and summary["out"] == "out"
    assert Path(summary["report"]).is_file()
    fitted = json.loads(run("fit", support_folder, "-o", "t.kshot", *TOY, "--json").stdout)
    assert fitted["classes"] == ["disc"]


def test_dry_run_touches_nothing(support_folder: Path, image_folder: Path) -> None:
    result = run("label", support_folder, image_folder, "-o", "out", "--dry-run", *TOY)
    assert "would label 4 images with 1 class (disc) from 2 supports" in result.stdout
    plan = json.loads(run("label", support_folder, image_folder, "-o", "out", "--dry-run", "--json", *TOY).stdout)
    assert plan["images"] == 4 and not Path("out").exists()


@pytest.mark.parametrize(
    "prompts",
    [
        ["--support", "disc=s.png:m.png"],
        ["--support", "s.png:m.png", "--class", "disc"],
        ["--box", "disc=s.png:{box}"],
        ["--point", "disc=s.png:{x},{y}", "--point", "disc=s.png:1,1,-"],
        ["--support", "disc=s.png"],
        ["--scribble", "disc=s.png:{x},{y};{x},{y}", "--scribble", "disc=s.png:1,1;9,1;-"],
    ],
)
def test_supports_on_the_command_line(prompts: list[str], image_folder: Path) -> None:
    picture, mask = draw(1)
    rows, columns = mask.nonzero()
    x, y = int(columns.mean()), int(rows.mean())
    box = f"{columns.min()},{rows.min()},{columns.max() + 1},{rows.max() + 1}"
    Image.fromarray(picture).save("s.png")
    Image.fromarray(mask).save("m.png")
    filled = [prompt.format(box=box, x=x, y=y) for prompt in prompts]
    result = run("label", image_folder, *filled, "-o", "out", *TOY)
    assert "0 failed" in result.stdout
    assert json.loads(Path("out/settings.json").read_text())["classes"] == ["disc"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--box", "s.png:1,2,3"], "expected IMAGE:x0,y0,x1,y1"),
        (["--box", "s.png"], "expected IMAGE:x0,y0,x1,y1"),
        (["--point", "s.png:1"], "expected IMAGE:x,y"),
        (["--point", "s.png:1,2;3,4"], "expected IMAGE:x,y"),
        (["--scribble", "s.png:1,2"], "expected IMAGE:x,y;x,y"),
        (["--scribble", "s.png:1,2;3"], "expected IMAGE:x,y;x,y"),
        (["--support", "s.png", "--class", "a", "--class", "b"], "NAME="),
        (["--text", "a dog"], "backbone toy reads no words; these do: clip-dinoiser"),
        (["--support", "s.png", "--layers", "last"], "block numbers"),
        (["--support", "s.png", "--set", "method.kapa=1"], "has no setting kapa"),
        (["--support", "s.png", "--dtype", "float12"], "no dtype 'float12'"),
        (["--support", "s.png", "--device", "gpu"], "no device is called 'gpu'"),
        (["--support", "s.png", "--method", "atuo"], "Did you mean 'auto'"),
        (["--support", "s.png", "--engine", "moon"], "choices: local, ray"),
        (["--support", "s.png", "--shard", "3"], "expected I/N"),
        (["--support", "s.png", "--batch-size", "0"], "expected a number from 1 on, or auto"),
        (["--support", "s.png", "--batch-size", "4", "--tile", "64"], "encoded one by one"),
        (["--support", "s.png", "--format", "bmp"], "no format is called 'bmp'"),
        (
            ["--support", "s.png", "--format", "support-yaml"],
            "no format is called 'support-yaml'; choices: areas",
        ),
        (["--support", "s.png", "--backbone", "clasic"], "Did you mean 'classic'"),
    ],
)
def test_wrong_options_say_what_they_want(
    arguments: list[str],
    message: str,
    image_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    Image.fromarray(draw(1)[0]).save("s.png")
    backbone = [] if "--backbone" in arguments else TOY
    monkeypatch.setattr(sys, "argv", ["kshot", "label", str(image_folder), *arguments, "-o", "out", *backbone])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err.replace("\n", " ")


def test_bands_and_stretch_hold_for_supports_and_images(tmp_path: Path) -> None:
    rasterio = pytest.importorskip("rasterio")
    for folder, seed in (("support/disc", 1), ("scenes", 3)):
        (tmp_path / folder).mkdir(parents=True)
        picture, mask = draw(seed)
        # Bands 5, 3, 2 hold the picture, ten times as bright; the others hold nothing.
        bands = np.zeros((5, *mask.shape), np.uint16)
        bands[[4, 2, 1]] = picture.transpose(2, 0, 1).astype(np.uint16) * 10
        how = {"driver": "GTiff", "dtype": "uint16", "count": 5, "transform": rasterio.Affine.scale(2)}
        path = tmp_path / folder / "a.tif"
        with rasterio.open(path, "w", width=mask.shape[1], height=mask.shape[0], **how) as file:
            file.write(bands)
        Image.fromarray(mask.astype(np.uint8) * 255).save(tmp_path / folder / "a.png")
    (tmp_path / "scenes" / "a.png").unlink()
    chosen = ("--bands", "5,3,2", "--stretch", "0,2550", "--backbone", "toy", "--size", 96)
    run("label", "support", "scenes", "-o", "out", *chosen)
    found, truth = read_mask(tmp_path / "out/masks/a.png", drawn=False), draw(3)[1]
    assert (found.astype(bool) & truth).sum() / (found.astype(bool) | truth).sum() > 0.7
    settings = json.loads((tmp_path / "out/settings.json").read_text())
    assert settings["look"] == {"bands": [5, 3, 2], "stretch": [0.0, 2550.0]}
    run("fit", "support", "-o", "disc.kshot", *chosen)
    run("predict", "disc.kshot", "scenes", "-o", "again", *chosen[:4])
    assert np.array_equal(found, read_mask(tmp_path / "again/masks/a.png", drawn=False))
    failed = run("predict", "disc.kshot", "scenes", "-o", "none", "--bands", "7,3,2", "--json", code=3)
    assert "no band 7, it has 5" in failed.stdout
    for wrong in (("--bands", "red"), ("--bands", "1,2"), ("--stretch", "9,1"), ("--stretch", "low")):
        refused = CliRunner().invoke(app, ["predict", "disc.kshot", "scenes", "-o", "no", *wrong])
        assert isinstance(refused.exception, SettingError) and wrong[1].split(",")[0] in str(refused.exception)


def test_a_missing_file_is_no_usage_error(image_folder: Path) -> None:
    done = as_process("label", image_folder, "--support", "gone.png:m.png", "-o", "out", *TOY)
    assert done.returncode == 1 and "gone.png: no such file" in done.stderr
    assert not Path("out").exists()


def test_images_that_the_shell_lists(support_folder: Path, image_folder: Path) -> None:
    images = [image_folder / name for name in ("a.jpg", "sub/a.jpg", "b.png", "a.jpg")]
    result = run("label", support_folder, *images, "-o", "out", *TOY)
    assert "3 processed" in result.stdout
    lines = [json.loads(line) for line in Path("out/manifest.jsonl").read_text().splitlines()]
    assert [line["input"] for line in lines] == ["a.jpg", "b.png", "sub/a.jpg"]
    run("label", support_folder, image_folder / "*.jpg", "-o", "pattern", *TOY)
    run("label", support_folder, *sorted(image_folder.glob("*.jpg")), "-o", "shell", *TOY)
    assert Path("shell/manifest.jsonl").read_bytes() == Path("pattern/manifest.jsonl").read_bytes()
    run("fit", support_folder, "-o", "t.kshot", *TOY)
    assert "3 processed" in run("predict", "t.kshot", *images, "-o", "two").stdout


def test_prompts_beside_a_support_folder_are_refused(support_folder: Path, image_folder: Path) -> None:
    result = run("label", support_folder, image_folder, "--box", "s.png:1,2,3,4", "-o", "out", code=2)
    assert "IMAGES alone" in result.output.replace("\n", " ")


def test_thresholds_hold_at_predict_time(support_folder: Path, image_folder: Path) -> None:
    run("fit", support_folder, "-o", "t.kshot", *TOY)

    def found(out: str, *options: str) -> dict[str, int]:
        run("predict", "t.kshot", image_folder, "-o", out, *options)
        lines = [json.loads(line) for line in Path(out, "manifest.jsonl").read_text().splitlines()]
        return {line["input"]: line["classes"]["disc"]["pixels"] for line in lines}

    assert sum(count > 0 for count in found("all").values()) == 3
    assert not any(found("area", "--min-area", "90%").values())
    assert not any(found("score", "--min-score", "1").values())
    assert not any(found("presence", "--min-presence", "1").values())
    assert found("none", "--min-area", "0", "--min-score", "0") == found("again", "--min-area", "0")
    run("predict", "t.kshot", image_folder / "a.jpg", "-o", "saved", "--format", "scores")
    saved = kshot.Prediction.from_scores(*read_scores(Path("saved/scores/a.npz"))).filtered(min_score=0.6)
    run("predict", "t.kshot", image_folder / "a.jpg", "-o", "anew", "--min-score", "0.6")
    assert np.array_equal(saved.mask, read_mask("anew/masks/a.png", drawn=False))
    settings = json.loads(Path("area/settings.json").read_text())
    assert settings["thresholds"] == {"min_presence": None, "min_score": 0.0, "min_area": "90%"}
    other = run("predict", "t.kshot", image_folder, "-o", "area", "--resume", "--min-area", "5", code=1)
    assert isinstance(other.exception, SettingError) and "--min-area" in str(other.exception)
    refused = run("predict", "t.kshot", image_folder, "-o", "no", "--min-area", "much", code=1)
    assert isinstance(refused.exception, SettingError) and "0.1%" in str(refused.exception)


@pytest.mark.parametrize(("limit", "images"), [(2, 2), (9, 4)])
def test_a_dry_run_counts_what_would_be_done(limit: int, images: int, support_folder: Path, image_folder: Path) -> None:
    limited = run("label", support_folder, image_folder, "-o", "out", "--dry-run", "--limit", limit, "--json", *TOY)
    assert json.loads(limited.stdout)["images"] == images
    shards = [("--shard", f"{number}/2") for number in (1, 2)]
    told = [run("label", support_folder, image_folder, "-o", "o", "--dry-run", *s, "--json").stdout for s in shards]
    assert sum(json.loads(plan)["images"] for plan in told) == 4


def test_colons_in_names_of_supports(image_folder: Path) -> None:
    picture, mask = draw(1)
    Path("input").mkdir()
    Image.fromarray(picture).save("input/cam 08:15:00.png")
    Image.fromarray(mask).save("input/mask 08:15.png")
    pair = "disc=input/cam 08:15:00.png:input/mask 08:15.png"
    assert "1 processed" in run("label", image_folder / "a.jpg", "--support", pair, "-o", "pair", *TOY).stdout
    alone = ("--class", "disc", "--support", "input/cam 08:15:00.png")
    assert "1 processed" in run("label", image_folder / "a.jpg", *alone, "-o", "alone", *TOY).stdout
    Image.fromarray(mask).save("15.png")
    for name in ("08", "08:15.png"):
        Image.fromarray(picture).save(name, format="PNG")
    told = run("label", image_folder, "--support", "08:15.png:15.png", "-o", "one", *TOY)  # no file is "15.png:15.png"
    assert "0 failed" in told.stdout
    Image.fromarray(mask).save("15.png:15.png")
    twice = run("label", image_folder, "--support", "08:15.png:15.png", "-o", "no2", *TOY, code=1)
    assert isinstance(twice.exception, SettingError) and "rename one" in str(twice.exception)


def test_a_support_yaml_names_its_folder(image_folder: Path) -> None:
    picture, mask = draw(1)
    Image.fromarray(picture).save("s.png")
    Image.fromarray(mask).save("m.png")
    Path("support.yaml").write_text("- {image: s.png, mask: m.png, label: disc}\n")
    result = run("label", "support.yaml", image_folder, "-o", "out", *TOY)
    assert "4 processed" in result.stdout and "disc (1); read from support.yaml" in result.stderr


def test_a_task_of_another_backbone_stops_before_the_first_image(support_folder: Path, image_folder: Path) -> None:
    run("fit", support_folder, "-o", "t.kshot", *TOY)
    done = as_process("predict", "t.kshot", image_folder, "-o", "out", "--backbone", "classic")
    assert done.returncode == 1 and "this task was fitted on toy" in done.stderr
    assert not Path("out").exists()


def test_a_failure_is_one_line_in_a_file(support_folder: Path, image_folder: Path) -> None:
    name = f"{'long ' * 20}name.jpg"
    (image_folder / name).write_text("no")
    done = as_process("label", support_folder, image_folder, "-o", "out", *TOY)
    assert done.returncode == 3
    assert any(line.startswith("failed ") and name in line and "save it" in line for line in done.stderr.splitlines())


def test_usage_errors_exit_with_2(image_folder: Path) -> None:
    assert "expected SUPPORT and IMAGES" in run("label", image_folder, "-o", "out", code=2).output.replace("\n", " ")
    run("label", code=2)
    run("nonsense", code=2)


def test_some_failed_exits_with_3(support_folder: Path, image_folder: Path) -> None:
    (image_folder / "bad.jpg").write_text("no")
    result = run("label", support_folder, image_folder, "-o", "out", *TOY, code=3)
    assert "1 failed" in result.stdout and "bad.jpg" in result.stderr
    assert "1 image failed; its reason stands in out/manifest.jsonl" in result.stderr


def test_errors_reach_the_shell(support_folder: Path, tmp_path: Path) -> None:
    done = as_process("label", support_folder, tmp_path / "nowhere", "-o", tmp_path / "out", *TOY, "--json")
    assert done.returncode == 1
    assert "error:" in done.stderr and "nowhere" in done.stderr and "Traceback" not in done.stderr
    assert json.loads(done.stdout)["error"] == "InputError"


def test_without_network_a_missing_model_is_told_within_a_second(support_folder: Path, image_folder: Path) -> None:
    from kshot.errors import WeightsNotFoundError
    from kshot.io.hub import find_folder

    started = time.perf_counter()
    with pytest.raises(WeightsNotFoundError, match="models pull"):
        find_folder("facebook/dinov2-small", "dinov2-small")
    assert time.perf_counter() - started < 5  # a promise of one second, on a machine that may be busy with other tests


def test_environment_and_config_rank_below_options(
    support_folder: Path, image_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("kshot.toml").write_text('backbone = "toy"\nsize = 64\n[fit]\nmethod = "prototype"\n')
    run("fit", support_folder, "-o", "a.kshot")
    monkeypatch.setenv("KSHOT_SIZE", "80")
    run("fit", support_folder, "-o", "b.kshot")
    run("fit", support_folder, "-o", "c.kshot", "--size", "96")
    sizes = [kshot.load_task(f"{name}.kshot").feature_spec.size for name in "abc"]
    assert sizes == [64, 80, 96] and kshot.load_task("a.kshot").method == "prototype"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("size = ", "not TOML"),
        ("[fitt]\nsize = 3", "no command is called fitt"),
        ("[fit]\nsice = 3", "fit has no option sice"),
        ("sice = 3", "no command has an option sice"),
    ],
)
def test_a_wrong_config_is_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "k.toml").write_text(text)
    with pytest.raises(SettingError, match=message):
        read_config(tmp_path / "k.toml", {"fit": ["size"]})


def test_a_config_names_options_as_they_are_typed(tmp_path: Path) -> None:
    (tmp_path / "k.toml").write_text('class = ["a"]\nmax-pixels = 5\n[fit]\nset = ["refiner.band=2"]\n')
    read = read_config(tmp_path / "k.toml", {"fit": ["class_", "set_"], "label": ["max_pixels"], "train": None})
    assert read["fit"] == {"class_": ["a"], "set_": ["refiner.band=2"]} and read["label"] == {"max_pixels": 5}


def test_a_config_may_lie_in_the_project_or_beside_the_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, support_folder: Path
) -> None:
    work, far = tmp_path / "project" / "a" / "b", tmp_path / "far"
    for folder in (work, far / "images"):
        folder.mkdir(parents=True)
    monkeypatch.chdir(work)
    typed = ["label", str(far / "images"), "-o", "out"]
    assert find_config(typed) is None
    (far / "kshot.toml").write_text('backbone = "toy"\nsize = 64\n')
    assert find_config(typed) == far / "kshot.toml"
    (tmp_path / "project" / "kshot.toml").write_text("")
    assert find_config(typed) == far / "kshot.toml"  # nothing says that the folders above are one project
    (tmp_path / "project" / ".git").mkdir()
    assert find_config(typed) == tmp_path / "project" / "kshot.toml"
    (work / "kshot.toml").write_text("")
    assert find_config(typed) == Path("kshot.toml")
    monkeypatch.chdir(tmp_path)
    (far / "support").symlink_to(support_folder)
    result = run("fit", far / "support", "-o", "t.kshot")
    assert f"settings: {far / 'kshot.toml'}" in result.stderr.replace("\n", "")
    assert kshot.load_task("t.kshot").feature_spec.size == 64


def test_verbose_tells_kshots_own_steps(support_folder: Path, image_folder: Path) -> None:
    done = as_process("label", support_folder, image_folder, "-o", "out", *TOY, "-v")
    lines = done.stderr.splitlines()
    assert "INFO backbone toy on cpu, torch.float32, method auto, refiner edges" in lines
    assert any(line.startswith("INFO sub/a.jpg: done") for line in lines)
    assert not [line for line in lines if line.startswith("DEBUG")]  # such as Pillow's, of each chunk


def test_quiet_leaves_failures_and_results(support_folder: Path, image_folder: Path) -> None:
    (image_folder / "bad.jpg").write_text("no")
    result = run("label", support_folder, image_folder, "-o", "out", *TOY, "--quiet", code=3)
    assert "5 processed" in result.stdout
    assert result.stderr.startswith("failed bad.jpg") and "supports:" not in result.stderr
    assert "supports:" in run("label", support_folder, image_folder, "-o", "two", *TOY, code=3).stderr


@pytest.mark.parametrize(
    ("command", "option", "typed", "offered"),
    [
        ("label", "backbone", "dinov2-s", "dinov2-small"),
        ("label", "method", "dense", "dense-comparison"),
        ("predict", "refiner", "ed", "edges"),
        ("label", "format", "png,co", "png,coco"),
        ("convert", "to", "label-s", "label-studio"),
    ],
)
def test_the_shell_completes_values(command: str, option: str, typed: str, offered: str) -> None:
    parameter = next(each for each in commands()[command].params if each.name == option)
    found = [item.value for item in parameter.shell_complete(typer.Context(commands()[command]), typed)]
    assert offered in found and all(value.startswith(typed) for value in found)


def test_models_lists_and_tells() -> None:
    listed = run("models", "list").stdout
    assert "classic" in listed and "dinov3-large" in listed
    assert not (Path(kshot.__file__).parent / "backbones" / "toy.py").exists()  # it is for tests alone
    rows = json.loads(run("models", "list", "--json").stdout)
    assert {row["name"]: row["here"] for row in rows}["classic"] is True
    assert "identity" in run("models", "info", "classic").stdout
    assert json.loads(run("models", "info", "dinov2-small", "--json").stdout)["patch"] == 14
    assert "nothing to download" in run("models", "pull", "classic").stdout
    assert "no backbone is called" in str(run("models", "info", "nope", code=1).exception)


def test_doctor_finds_this_installation_well() -> None:
    findings = json.loads(run("doctor", "--json").stdout)
    assert {f["what"] for f in findings} >= {"kshot", "torch", "device", "torchvision", "backbone", "Hub"}
    assert not [f for f in findings if f["state"] == "problem"]
    assert "torchvision" in run("doctor").stdout


def test_doctor_sees_a_torchvision_that_breaks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    result = run("doctor", code=1)
    assert "problem" in result.stdout and "pip uninstall torchvision" in result.stdout


def test_help_and_version() -> None:
    assert f"kshot {kshot.__version__}" in run("--version").stdout
    for command in ([], ["label"], ["fit"], ["predict"], ["models"], ["doctor"], ["demo"]):
        assert "Usage" in run(*command, "--help").stdout


def test_words_on_the_command_line(tmp_path: Path, image_folder: Path) -> None:
    """Words name their class by themselves, and mix with an image of it."""
    folder = tiny_clip.make_dinoiser(tmp_path / "clip")
    model = ["--backbone", str(folder), "--method", "clip-dinoiser", "--size", "64", "--device", "cpu"]
    result = run("label", image_folder, "--text", "rust spot", "--text", "pet=a cat", "-o", "out", *model)
    assert "0 failed" in result.stdout
    assert json.loads(Path("out/settings.json").read_text())["classes"] == ["rust spot", "pet"]
    page = Path("out/report.html").read_text()
    assert "a cat · text" in page and "rust spot · text" in page
    Image.fromarray(draw(1)[0]).save("s.png")
    mixed = run("fit", "--text", "cat", "--support", "s.png", "--class", "cat", "-o", "cat.kshot", *model)
    assert "1 class (cat), 1 support image and 1 text" in mixed.stdout
    grown = run("fit", "--text", "dog", "--add-to", "cat.kshot", "-o", "pets.kshot", "--json")
    assert json.loads(grown.stdout)["classes"] == ["cat", "dog"] and json.loads(grown.stdout)["supports"] == 3
    assert "0 failed" in run("predict", "pets.kshot", image_folder, "-o", "pets").stdout


def test_models_that_come_in_parts_are_here_when_all_are() -> None:
    rows = {row["name"]: row for row in json.loads(run("models", "list", "--json").stdout)}
    assert rows["clip-dinoiser"]["here"] is False and rows["clip-vit-b16"]["text"] is True
    assert "no weights on this machine" in str(run("models", "pull", "clip-dinoiser", code=1).exception)


def test_cvat_function_writes_a_file_and_replaces_none(tmp_path: Path, support_folder: Path) -> None:
    run("fit", support_folder, "-o", tmp_path / "disc.kshot", *TOY)
    told = json.loads(run("cvat-function", tmp_path / "disc.kshot", "-o", tmp_path / "f.py", "--json").stdout)
    text = (tmp_path / "f.py").read_text()
    assert told["written"] == str(tmp_path / "f.py") and f"--function-file {tmp_path / 'f.py'}" in told["command"]
    compile(text, "f.py", "exec")
    assert str(tmp_path / "disc.kshot") in text
    again = run("cvat-function", tmp_path / "disc.kshot", "-o", tmp_path / "f.py", code=1)
    assert "is there already" in str(again.exception)
    refused = run("cvat-function", tmp_path / "disc.kshot", "-o", tmp_path / "f.txt", code=1)
    assert "ends in .py" in str(refused.exception)
    assert (tmp_path / "f.py").read_text() == text
    (tmp_path / "no.kshot").write_bytes(b"nothing")
    run("cvat-function", tmp_path / "no.kshot", "-o", tmp_path / "g.py", code=1)
    assert not (tmp_path / "g.py").exists()
