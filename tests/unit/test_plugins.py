"""What installed distributions add: usable like kshot's own, and where it is broken nobody else pays for it."""

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

import kshot
from kshot import _plugins
from kshot.backbones.base import load_backbone, spec_of
from kshot.cli import options
from kshot.errors import PluginError, UnknownNameError
from kshot.formats.base import load_format, read_support
from tests.support.commands import TOY, run
from tests.support.listings import example_distribution, installed

FILES = example_distribution()
BROKEN = "raise RuntimeError('too old')\n"
WORKING = {"method": "prototype", "backbone": "toy", "format": "png"}
KINDS = {"method": "nearest", "backbone": "colours", "format": "shares"}
LOADERS = {
    "method": lambda name: kshot.Segmenter(backbone="toy", size=96, method=name),
    "backbone": load_backbone,
    "format": load_format,
}


@pytest.fixture
def example(tmp_path: Path) -> Iterator[None]:
    with installed(tmp_path / "site", FILES):
        yield


def with_module(name: str, text: str) -> dict[str, str]:
    """The example with another text in one of its modules."""
    assert f"kshot_example/{name}.py" in FILES
    return FILES | {f"kshot_example/{name}.py": text}


def renamed(**names: str) -> dict[str, str]:
    """The example with entry points of other names."""
    about = FILES["pyproject.toml"]
    for old, new in names.items():
        assert f"\n{old} = " in about
        about = about.replace(f"\n{old} = ", f"\n{new} = ")
    return FILES | {"pyproject.toml": about}


@pytest.mark.usefixtures("example")
def test_they_are_offered_and_imported_when_they_are_needed(support_folder: Path, image_folder: Path) -> None:
    assert "nearest" in kshot.names("methods") and "shares" in kshot.names("formats")
    offered = (options.complete_method("nea"), options.complete_backbone("col"), options.complete_formats("png,sh"))
    assert offered == (["nearest"], ["colours"], ["png,shares"])
    assert "kshot_example.nearest" not in sys.modules and "kshot_example.colours" not in sys.modules
    out = image_folder.with_name("out")
    chosen = ["--backbone", "colours", "--method", "nearest", "--format", "png,shares"]
    run("label", support_folder, image_folder, *chosen, "-o", out)
    settings = json.loads((out / "settings.json").read_text())
    assert settings["method_source"] == {"distribution": "kshot-example", "version": "1.0"}
    assert (settings["method"], settings["backbone"]["backbone"]) == ("nearest", "colours")
    share = out / "shares" / "b.txt"
    name, percent = share.read_text().split("\t")
    assert name == "disc" and 1 < float(percent) < 50
    assert "colours" in kshot.names("backbones") and spec_of("colours").source == "kshot-example"


@pytest.mark.usefixtures("example")
def test_the_doctor_lists_them() -> None:
    found = {line["what"]: line for line in json.loads(run("doctor", "--json").stdout) if line["what"] in KINDS}
    told = {kind: line["text"] for kind, line in found.items()}
    assert told == {kind: f"{name} of kshot-example 1.0" for kind, name in KINDS.items()}
    assert {line["state"] for line in found.values()} == {"ok"}


@pytest.mark.parametrize("kind", KINDS)
def test_one_that_does_not_load_is_named_and_costs_nothing_else(
    kind: str, tmp_path: Path, support_folder: Path, image_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    name = KINDS[kind]
    with installed(tmp_path / "site", with_module(name, BROKEN)):
        with pytest.raises(PluginError) as error:
            LOADERS[kind](name)
        said = f"the {kind} '{name}' of kshot-example 1.0: cannot be imported (RuntimeError: too old)"
        assert str(error.value).startswith(said) and "pip uninstall kshot-example" in str(error.value)
        others = {"method": "nearest", "backbone": "colours", "format": "shares"} | {kind: WORKING[kind]}
        given = [word for option, chosen in others.items() for word in (f"--{option}", chosen)]
        run("label", support_folder, image_folder, "-o", tmp_path / "out", "--size", 96, *given)
        warned = [record.message for record in caplog.records if record.levelno == logging.WARNING]
        # A method is only imported by name; formats and backbones are all looked through.
        assert warned == ([] if kind == "method" else [str(error.value)])
        found = run("doctor", "--json", code=1).stdout
        assert [line["text"] for line in json.loads(found) if line["state"] == "problem"] == [str(error.value)]


@pytest.mark.parametrize(
    ("kind", "text", "problem"),
    [
        ("method", "", "it defines no dataclass Settings"),
        ("method", FILES["kshot_example/nearest.py"].replace('"nearest"', '"near"'), "does not say method = 'nearest'"),
        ("backbone", "SPECS = {}", "needs SPECS with a Spec of this name, and load()"),
        ("backbone", FILES["kshot_example/colours.py"].replace("def load", "def load_"), "and load()"),
        ("format", "FORMAT = 1", "its FORMAT is no object of a kshot.formats.base.Format"),
        ("format", "from kshot.formats.png import FORMAT", "the class of its FORMAT belongs into kshot_example.shares"),
    ],
)
def test_what_a_module_lacks_is_said(kind: str, text: str, problem: str, tmp_path: Path) -> None:
    with installed(tmp_path / "site", with_module(KINDS[kind], text)):
        with pytest.raises(PluginError) as error:
            LOADERS[kind](KINDS[kind])
        assert problem in str(error.value) and "kshot-example 1.0" in str(error.value)
        assert {"tiny", "classic"} < set(kshot.names("backbones"))


@pytest.mark.parametrize(
    ("kind", "taken"), [("method", "density"), ("backbone", "tiny"), ("format", "png"), ("format", "label-studio")]
)
def test_a_name_of_kshot_stays_kshots(kind: str, taken: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with installed(tmp_path / "site", renamed(**{KINDS[kind]: taken})):
        found = LOADERS[kind](taken)
        module = found.method.__name__ if kind == "method" else type(found).__module__
        assert module.startswith("kshot.")
        said = f"the {kind} '{taken}' of kshot-example 1.0: kshot has one of this name, and takes that"
        assert [record.message.startswith(said) for record in caplog.records] == [True]
        problems = [line for line in json.loads(run("doctor", "--json", code=1).stdout) if line["state"] == "problem"]
        assert [line["text"].startswith(said) for line in problems] == [True]


def test_a_name_of_two_distributions_is_nobodys(tmp_path: Path) -> None:
    second = {"pyproject.toml": FILES["pyproject.toml"].replace('"kshot-example"', '"kshot-second"')}
    with ExitStack() as stack:
        stack.enter_context(installed(tmp_path / "one", FILES))
        stack.enter_context(installed(tmp_path / "two", second))
        with pytest.raises(PluginError, match=r"one of this name is in kshot-(example|second) too"):
            LOADERS["method"]("nearest")
        assert LOADERS["method"]("density")


READER = '''
from kshot.formats.base import AnnotationReader

class Shares(AnnotationReader):
    """Fails on whatever there is."""

    layout = "shares: nothing"

    def read_annotations(self, where, images=None):
        return {}["nothing"]

FORMAT = Shares()
'''


def test_a_reader_that_fails_is_left_out(
    tmp_path: Path, support_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with installed(tmp_path / "site", with_module("shares", READER)):
        assert read_support(support_folder).classes == ("disc",)
        (warning,) = {record.message for record in caplog.records}
        assert warning == f"{support_folder}: not read as shares of kshot-example 1.0 (KeyError: 'nothing')"
        refused = run(
            "label", support_folder, support_folder, *TOY, "-o", tmp_path / "out", "--format", "shares", code=1
        )
        assert "the format shares is not written by a run" in str(refused.exception)


@pytest.mark.usefixtures("example")
def test_an_unknown_name_lists_them() -> None:
    with pytest.raises(UnknownNameError, match=r"Did you mean 'nearest'\?"):
        _plugins.load("methods", "neares")
