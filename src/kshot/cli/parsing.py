"""From the text of an option to its value. Each raises `SettingError` in the words of the option."""

import contextlib
from collections.abc import Sequence

from kshot import _plugins
from kshot._elsewhere import installed
from kshot.errors import SettingError

_SWITCHES = {"true": True, "false": False}
_READ_ONLY = {"class-folders", "index-masks", "kshot-run", "support-yaml"}
_PER_IMAGE = {"overlay", "png", "scores"}
_FORMATS = [name for name in _plugins.option_names("formats") if name not in _READ_ONLY]
WRITTEN = ", ".join(_FORMATS)
# By hand, because a backbone's file imports torch.
BACKBONES = (
    *("classic", "clip-dinoiser", "clip-vit-b16", "clip-vit-b16-laion2b"),
    *(f"dinov2-{size}{kind}" for size in ("base", "large", "small") for kind in ("", "-registers")),
    *("dinov3-base", "dinov3-large", "dinov3-small", "tiny", "vit-tiny"),
)
CONVERTED = ", ".join(["png", *(name for name in _FORMATS if name not in _PER_IMAGE)])


def parse_size(text: str | None) -> int | str | None:
    """A number of pixels, or "auto"."""
    if text is None or text == "auto":
        return text
    if not text.isdecimal():
        raise SettingError(f"--size {text}: expected a number of pixels, or auto")
    return int(text)


def parse_layers(text: str | None) -> tuple[str, ...] | None:
    """Layers from "10,12,k12"."""
    layers = _parts(text)
    if not all(part[part[:1] in ("k", "v") :].isdecimal() for part in layers or ()):
        raise SettingError(f"--layers {text}: expected block numbers such as 10,12, k12 (keys) or v12 (values)")
    return layers


def parse_bands(text: str | None) -> tuple[int, ...] | None:
    """Bands from "4,3,2"."""
    bands = _parts(text)
    if not all(part.isdecimal() for part in bands or ()):
        raise SettingError(f"--bands {text}: expected one or three band numbers from 1, such as 4,3,2")
    return None if bands is None else tuple(int(part) for part in bands)


def parse_stretch(text: str | None) -> tuple[float, ...] | None:
    """Two numbers from "0,3000"."""
    try:
        limits = _parts(text)
        return None if limits is None else tuple(float(part) for part in limits)
    except ValueError as error:
        raise SettingError(f"--stretch {text}: expected two numbers LOW,HIGH, such as 0,3000") from error


def parse_numbers(flag: str, text: str | None, least: int = 1) -> tuple[int, ...]:
    """Whole numbers from "1,5", each once; none from None."""
    parts = _parts(text) or ()
    if not all(part.isdecimal() and int(part) >= least for part in parts):
        raise SettingError(f"{flag} {text}: expected whole numbers from {least} on, with commas between, such as 1,5")
    return tuple(dict.fromkeys(int(part) for part in parts))


def parse_settings(texts: Sequence[str]) -> dict[str, dict[str, int | float | str]]:
    """`method_settings` and `refiner_settings` from texts such as "refiner.band=2"; the last of a name counts."""
    found: dict[str, dict[str, int | float | str]] = {"method_settings": {}, "refiner_settings": {}}
    for text in texts:
        name, equals, value = text.partition("=")
        family, _, key = name.strip().partition(".")
        if not equals or not key or f"{family}_settings" not in found:
            raise SettingError(f"--set {text}: expected method.NAME=VALUE or refiner.NAME=VALUE")
        found[f"{family}_settings"][key] = _value(value.strip())
    return {name: values for name, values in found.items() if values}


def parse_formats(text: str) -> tuple[str, ...]:
    """Formats from "png,label-studio"; an unknown one lists the choices."""
    chosen = tuple(part.replace("_", "-") for part in _parts(text) or () if part)
    for name in chosen:
        if name not in _FORMATS and name not in installed("formats"):
            raise SettingError(f"no format is called {name!r}; choices: {', '.join(written())}")
    return tuple(name.replace("-", "_") for name in chosen)


def written() -> list[str]:
    """Formats of labelling, and those of installed distributions, which may be for other things too."""
    return [*_FORMATS, *installed("formats")]


def parse_shard(text: str | None) -> tuple[int, int] | None:
    """Number and count from "2/4"."""
    if text is None:
        return None
    number, slash, count = text.partition("/")
    if not (slash and number.isdecimal() and count.isdecimal()):
        raise SettingError(f"--shard {text}: expected I/N, such as 2/4")
    return int(number), int(count)


def parse_workers(text: str) -> int | None:
    """A number from 0 on; None for "auto"."""
    return _number_or_auto("--workers", text, 0)


def parse_batch_size(text: str) -> int | None:
    """A number from 1 on; None for "auto"."""
    return _number_or_auto("--batch-size", text, 1)


def _number_or_auto(option: str, text: str, least: int) -> int | None:
    if text == "auto":
        return None
    if not text.isdecimal() or int(text) < least:
        raise SettingError(f"{option} {text}: expected a number from {least} on, or auto")
    return int(text)


def _parts(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(part.strip() for part in text.split(","))


def _value(text: str) -> int | float | str:
    if text.lower() in _SWITCHES:
        return _SWITCHES[text.lower()]
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return text
