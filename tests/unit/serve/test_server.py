"""What keeps a server from starting, and what it says then."""

import os
import socket
from pathlib import Path

import pytest

import kshot
from kshot.errors import OutputError, SettingError
from kshot.serve import serve
from kshot.serve.server import opened
from tests.support.served import pictures


def test_a_port_in_use_is_named_with_the_next_that_is_free(tmp_path: Path, toy: kshot.Segmenter) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(SettingError, match=rf"port {port} of 127\.0\.0\.1: .*--port (\d+)") as refused:
            serve(pictures(tmp_path / "images"), tmp_path / "out", segmenter=toy, port=port)
    offered = int(str(refused.value).rsplit(" ", 1)[1])
    assert port < offered < port + 50
    with socket.socket() as free:
        free.bind(("127.0.0.1", offered))
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path, toy: kshot.Segmenter) -> None:
    (tmp_path / "file").write_bytes(b"mine")
    with (
        pytest.raises(OutputError, match="file"),
        opened(pictures(tmp_path / "images"), tmp_path / "file" / "out", toy),
    ):
        pass
    assert (tmp_path / "file").read_bytes() == b"mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_named(tmp_path: Path, toy: kshot.Segmenter) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    with pytest.raises(OutputError, match="closed"), opened(pictures(tmp_path / "images"), closed / "out", toy):
        pass
