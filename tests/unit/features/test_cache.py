"""Features found by content: right, bounded, and no trouble when the disk is."""

import logging
import os
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import kshot
from kshot.features import FeatureCache, extract
from kshot.ops.geometry import FeatureMap
from tests.support.drawing import draw


@pytest.fixture
def image(tmp_path: Path) -> Path:
    from PIL import Image

    path = tmp_path / "a.png"
    Image.fromarray(draw(0)[0]).save(path)
    return path


def get(cache: FeatureCache, image: Path, toy: kshot.Segmenter, size: int = 96) -> FeatureMap:
    return cache.get(image.read_bytes(), toy.backbone, size, lambda: extract(toy.backbone, draw(0)[0], size))


def test_kept_and_found_again(tmp_path: Path, image: Path, toy: kshot.Segmenter) -> None:
    first = FeatureCache(tmp_path / "cache")
    made = get(first, image, toy)
    second = FeatureCache(tmp_path / "cache")
    found = get(second, image, toy)
    assert (first.misses, second.hits, second.misses) == (1, 1, 0)
    assert torch.equal(made.features, found.features)
    assert made.frame == found.frame and made.identity == found.identity
    get(second, image, toy, size=64)
    image.write_bytes(image.read_bytes() + b"\0")
    get(second, image, toy)
    assert second.misses == 2


@pytest.mark.parametrize("damage", [b"", b"not safetensors", None])
def test_a_damaged_file_is_made_anew(
    damage: bytes | None, tmp_path: Path, image: Path, toy: kshot.Segmenter, caplog: pytest.LogCaptureFixture
) -> None:
    made = get(FeatureCache(tmp_path / "cache"), image, toy)
    path = next((tmp_path / "cache").glob("*/*.safetensors"))
    if damage is None:
        save_file({"other": torch.zeros(1)}, path)
    else:
        path.write_bytes(damage)
    cache = FeatureCache(tmp_path / "cache")
    with caplog.at_level(logging.WARNING):
        assert torch.equal(get(cache, image, toy).features, made.features)
    assert cache.misses == 1 and "damaged" in caplog.text
    assert get(FeatureCache(tmp_path / "cache"), image, toy).frame == made.frame


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255), cut=st.booleans())
def test_no_byte_of_a_file_is_believed_unchecked(
    place: float, flip: int, cut: bool, tmp_path: Path, image: Path, toy: kshot.Segmenter
) -> None:
    folder = tmp_path / "cache"
    made = extract(toy.backbone, draw(0)[0], 96)
    get(FeatureCache(folder), image, toy)
    (path,) = folder.glob("*/*.safetensors")
    data = bytearray(path.read_bytes())
    head = 8 + int.from_bytes(data[:8], "little")
    # As many flips in the header as in the numbers, which are most of the file.
    at = int(place * 2 * head) if place < 0.5 else int(head + (place - 0.5) * 2 * (len(data) - head))
    data[at] ^= flip
    path.write_bytes(data[:at] if cut else data)
    logging.disable()  # a warning for each
    found = get(FeatureCache(folder), image, toy)
    logging.disable(logging.NOTSET)
    assert torch.equal(found.features, made.features) and found.frame == made.frame
    assert found.identity == made.identity and torch.equal(found.token, made.token)


def test_features_of_another_image_or_an_older_version_are_made_anew(
    tmp_path: Path, image: Path, toy: kshot.Segmenter, caplog: pytest.LogCaptureFixture
) -> None:
    made = get(FeatureCache(tmp_path), image, toy)
    (path,) = tmp_path.glob("*/*.safetensors")
    other = tmp_path / "ff" / ("f" * 64 + ".safetensors")
    FeatureCache(tmp_path)._write(other, extract(toy.backbone, 255 - draw(0)[0], 96))
    tensors = load_file(other)
    other.replace(path)
    with caplog.at_level(logging.WARNING):
        assert torch.equal(get(FeatureCache(tmp_path), image, toy).features, made.features)
    assert "key and checksum" in caplog.text
    caplog.clear()
    save_file(tensors, path)  # as files were before they had a checksum
    with caplog.at_level(logging.WARNING):
        assert torch.equal(get(FeatureCache(tmp_path), image, toy).features, made.features)
    assert not caplog.text


def test_what_was_used_longest_ago_goes_first(tmp_path: Path, image: Path, toy: kshot.Segmenter) -> None:
    cache = FeatureCache(tmp_path / "cache")
    for size in (96, 112, 128):
        get(cache, image, toy, size)
    files = sorted((tmp_path / "cache").glob("*/*.safetensors"), key=lambda path: path.stat().st_mtime_ns)
    for age, path in enumerate(files):
        os.utime(path, (1000 + age, 1000 + age))
    half_written = files[0].parent / ".kshot-0.safetensors"
    half_written.write_bytes(b"left by a killed process")
    os.utime(half_written, (1000, 1000))
    total = sum(path.stat().st_size for path in files)
    FeatureCache(tmp_path / "cache", total - 1).prune()
    assert not files[0].exists() and files[2].exists() and not half_written.exists()


def test_a_full_disk_is_said_once(
    tmp_path: Path, image: Path, toy: kshot.Segmenter, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("kshot.features.cache.save_file", full)
    cache = FeatureCache(tmp_path / "cache")
    with caplog.at_level(logging.WARNING):
        get(cache, image, toy)
        get(cache, image, toy, size=64)
        get(FeatureCache(tmp_path / "cache"), image, toy)
    assert not cache.writable and caplog.text.count("No space left") == 1
    assert not list((tmp_path / "cache").rglob("*.safetensors"))


def test_no_folder_keeps_nothing(image: Path, toy: kshot.Segmenter) -> None:
    cache = FeatureCache(None)
    get(cache, image, toy)
    cache.prune()
    assert cache.misses == 1 and cache.path(b"", toy.backbone, 96) is None
