"""Tasks and learned weights on disk: as written, or refused by name."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from kshot.errors import SettingError, TaskFileError
from kshot.io.tensor_file import Learned, read_learned, read_task, write_learned, write_task

LEARNED = Learned(
    {"method": "prototype", "identity": "a" * 64, "backbone": "tiny", "base": ["cat"], "lr": 0.5},
    {"projection.weight": torch.arange(12.0).reshape(3, 4), "shares": torch.ones(5).half()},
)


def test_they_come_back(tmp_path: Path) -> None:
    write_learned(tmp_path / "head.safetensors", LEARNED)
    found = read_learned(tmp_path)
    assert found.facts == LEARNED.facts and found.digest == LEARNED.digest
    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in LEARNED.tensors.items())


def test_the_same_contents_are_the_same_bytes(tmp_path: Path) -> None:
    for number in range(20):
        write_learned(tmp_path / f"{number}.safetensors", LEARNED)
        write_task(tmp_path / f"{number}.kshot", {"classes": ("cat",)}, {"0.features": torch.ones(2, 3)})
    for kind in ("safetensors", "kshot"):
        assert len({path.read_bytes() for path in tmp_path.glob(f"*.{kind}")}) == 1


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, 10**4), flip=st.integers(1, 255), cut=st.booleans())
def test_no_byte_is_believed_unchecked(at: int, flip: int, cut: bool, tmp_path: Path) -> None:
    path = tmp_path / "head.safetensors"
    write_learned(path, LEARNED)
    data = bytearray(path.read_bytes())
    data[at % len(data)] ^= flip
    path.write_bytes(data[: at % len(data)] if cut else data)
    try:
        found = read_learned(path)
    except SettingError as error:
        assert str(path) in str(error)
    else:  # a blank of the header
        assert found.facts == LEARNED.facts and found.digest == LEARNED.digest
        assert {n: t.dtype for n, t in found.tensors.items()} == {n: t.dtype for n, t in LEARNED.tensors.items()}


@pytest.mark.parametrize("facts", ["[]", "1", '["method", "identity", "backbone"]', "[" * 100_000, "{}", "\\u"])
def test_facts_of_another_shape_are_refused(facts: str, tmp_path: Path) -> None:
    path = tmp_path / "head.safetensors"
    save_file(dict(LEARNED.tensors), path, {"kshot-learned": facts})
    with pytest.raises(SettingError, match="no weights of a method"):
        read_learned(path)
    facts = json.dumps({"method": 1, "identity": "a", "backbone": "tiny"})
    save_file(dict(LEARNED.tensors), path, {"kshot-learned": facts})
    with pytest.raises(SettingError, match="lack method"):
        read_learned(path)


@pytest.mark.parametrize(
    ("before", "after"), [(b'"cat"', b'"dog"'), (b'"kappa": 20.0', b'"kappa": 30.0'), (b'"size": 224', b'"size": 448')]
)
def test_a_task_file_with_another_word_in_its_header_is_refused(tmp_path: Path, before: bytes, after: bytes) -> None:
    path = tmp_path / "cat.kshot"
    header = {"classes": ("cat",), "settings": {"kappa": 20.0}, "origin": {"size": 224}}
    write_task(path, header, {"0.features": torch.arange(6.0).reshape(2, 3)})
    assert read_task(path)[0]["classes"] == ["cat"]
    escaped, other = (text.replace(b'"', b'\\"') for text in (before, after))
    assert path.read_bytes().count(escaped) == 1
    path.write_bytes(path.read_bytes().replace(escaped, other))
    with pytest.raises(TaskFileError, match="do not match its checksum"):
        read_task(path)
