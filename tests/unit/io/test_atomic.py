import os
import threading

import numpy as np
import pytest

from kshot.errors import OutputError, SettingError
from kshot.formats.base import save
from kshot.io.atomic import atomic_path, write_text
from tests.support.files import prediction, square


def test_missing_folders_are_made_and_nothing_is_left_beside(tmp_path):
    write_text(tmp_path / "a" / "b" / "c.txt", "käse")
    assert [p.name for p in tmp_path.rglob("*")] == ["a", "b", "c.txt"]
    assert (tmp_path / "a/b/c.txt").read_bytes() == "käse".encode()


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_exception_inside_leaves_the_old_file_and_no_litter(error, tmp_path):
    path = tmp_path / "x.txt"
    path.write_text("old")
    with pytest.raises(error), atomic_path(path) as beside:
        beside.write_text("half")
        raise error
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_old_file_stands_until_the_block_ends(tmp_path):
    path = tmp_path / "x.txt"
    path.write_text("old")
    with atomic_path(path) as beside:
        beside.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"


@pytest.mark.parametrize("name", ["x.png", "x.npz", "x.jpg", "x.webp", "x.json"])
def test_a_place_that_cannot_be_written_is_an_output_error_naming_it(name, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError) as refused:
        prediction(square(), ("cat",)).save(tmp_path / "file" / name)
    assert str(tmp_path / "file" / name) in str(refused.value)


def test_an_output_error_inside_keeps_its_own_words(tmp_path):
    with pytest.raises(OutputError, match=r"^the other file$"), atomic_path(tmp_path / "x.txt"):
        raise OutputError("the other file")


def test_a_folder_in_the_place_of_the_file_is_an_output_error(tmp_path):
    path = tmp_path / "x.txt"
    path.mkdir()
    with pytest.raises(OutputError, match=r"x\.txt"):
        write_text(path, "new")
    assert list(tmp_path.iterdir()) == [path]


def test_files_take_the_users_umask_also_from_many_threads(tmp_path):
    before = os.umask(0o027)
    try:
        threads = [threading.Thread(target=write_text, args=(tmp_path / f"{i}.txt", "x")) for i in range(40)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o640}
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)


def test_a_name_as_long_as_the_file_system_takes_is_written(tmp_path):
    path = tmp_path / ("x" * 251 + ".txt")
    write_text(path, "long")
    assert path.read_text() == "long"


def test_the_suffix_picks_the_format_in_any_case(tmp_path):
    found = prediction(square(), ("cat",))
    for name in ("a.PNG", "a.npz", "a.JPG", "a.jpeg", "a.webp", "a.json"):
        assert save(found, tmp_path / name).stat().st_size > 0
    assert np.load(found.save(tmp_path / "b.NPZ")).files == ["scores", "classes", "present"]


@pytest.mark.parametrize("name", ["a.xyz", "a"])
def test_an_unknown_suffix_lists_the_known_ones(name, tmp_path):
    with pytest.raises(SettingError, match=r"\.png") as refused:
        save(prediction(square(), ("cat",)), tmp_path / name)
    assert ".npz" in str(refused.value) and ".webp" in str(refused.value)
