"""fetch, and what CIFAR does with it: from a loopback server that answers, breaks off, lies or is not there."""

import errno
import threading
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from cifar_tl.data import download, sources
from cifar_tl.data.cifar import published
from cifar_tl.data.cifar.published import CIFAR100, PublishedFile
from cifar_tl.data.download import download_root, fetch
from cifar_tl.data.progress import tell_nobody
from cifar_tl.errors import DataError, SourceUnavailable
from tests.made_cifar import archive_bytes, made_content, md5, parquet_bytes, pickled_files

ARCHIVE = "/kriz/cifar-100-python.tar.gz"
PARQUETS = {split: f"/hub/uoft-cs/cifar100/resolve/main/cifar100/{split}-00000-of-00001.parquet" for split in ("train", "test")}


@dataclass
class Server:
    """`files` maps paths to bodies; `missing_bytes` of a path are promised in Content-Length but never sent."""

    address: str
    files: dict[str, bytes] = field(default_factory=dict)
    missing_bytes: dict[str, int] = field(default_factory=dict)
    without_length: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)


@pytest.fixture
def server():
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            made.asked.append(self.path)
            body = made.files.get(self.path)
            if body is None:
                self.send_error(404)
                return
            self.send_response(200)
            if self.path not in made.without_length:
                self.send_header("Content-Length", str(len(body) + made.missing_bytes.get(self.path, 0)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made = Server(f"http://127.0.0.1:{http.server_address[1]}")
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    http.shutdown()
    thread.join()
    http.server_close()


@pytest.fixture
def data(tmp_path, monkeypatch, server):
    """The data root, with both published addresses on the loopback server."""
    monkeypatch.setenv("CIFAR_TL_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("CIFAR_TL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(published, "ARCHIVE_BASE", f"{server.address}/kriz")
    monkeypatch.setattr(published, "PARQUET_BASE", f"{server.address}/hub")
    return tmp_path / "data"


@pytest.fixture(scope="module")
def content():
    return made_content(CIFAR100)


def offer_archive(server, content, monkeypatch):
    packed = archive_bytes(pickled_files(content, CIFAR100), CIFAR100)
    server.files[ARCHIVE] = packed
    monkeypatch.setitem(published.FORMATS, "cifar100", replace(CIFAR100, archive=PublishedFile(CIFAR100.archive.name, md5(packed))))


def offer_parquet(server, content):
    for split, path in PARQUETS.items():
        server.files[path] = parquet_bytes(content[split], CIFAR100)


def files_below(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file() and path.name != ".download.lock")


def test_a_download_is_complete_and_its_progress_ends_at_the_total(server, data):
    server.files["/file"] = bytes(range(256)) * 10_000
    told = []
    fetch(f"{server.address}/file", data / "file", tell=told.append, md5=md5(server.files["/file"]))
    assert (data / "file").read_bytes() == server.files["/file"]
    assert (told[0].phase, told[0].done, told[0].unit) == ("Downloading file", 0, "bytes")
    assert (told[-1].done, told[-1].total) == (2_560_000, 2_560_000)
    assert [item.done for item in told] == sorted(item.done for item in told)


def test_a_file_of_unknown_length_is_taken_as_it_comes(server, data):
    server.files["/file"] = b"abc"
    server.without_length.add("/file")
    fetch(f"{server.address}/file", data / "file", tell=tell_nobody)
    assert (data / "file").read_bytes() == b"abc"


@pytest.mark.parametrize("trouble", ["404", "broken off", "empty", "wrong MD5", "no server", "no address"])
def test_a_failed_download_names_its_address_and_leaves_nothing(trouble, server, data):
    url, checksum = f"{server.address}/file", None
    server.files["/file"] = b"" if trouble == "empty" else b"x" * 3_000_000
    if trouble == "404":
        server.files.clear()
    elif trouble == "broken off":
        server.missing_bytes["/file"] = 1000
    elif trouble == "wrong MD5":
        checksum = md5(b"another")
    elif trouble == "no server":
        url = "http://127.0.0.1:1/file"
    elif trouble == "no address":
        url = "nonsense://file"
    with pytest.raises(SourceUnavailable) as error:
        fetch(url, data / "file", tell=tell_nobody, md5=checksum)
    assert str(error.value).startswith(url)
    assert files_below(data) == []


def test_a_failed_download_can_be_repeated(server, data):
    server.files["/file"] = b"x" * 100
    server.missing_bytes["/file"] = 1
    with pytest.raises(SourceUnavailable, match="broke off after 100 of 101 bytes"):
        fetch(f"{server.address}/file", data / "file", tell=tell_nobody)
    server.missing_bytes.clear()
    fetch(f"{server.address}/file", data / "file", tell=tell_nobody)
    assert files_below(data) == ["file"]


def test_an_interrupted_download_leaves_nothing(server, data):
    server.files["/file"] = b"x" * 3_000_000

    def interrupt(progress):
        if progress.done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(f"{server.address}/file", data / "file", tell=interrupt)
    assert files_below(data) == []


def test_what_a_killed_download_left_is_overwritten(server, data):
    server.files["/file"] = b"whole"
    data.mkdir()
    (data / ".file.part").write_bytes(b"half of something longer")
    fetch(f"{server.address}/file", data / "file", tell=tell_nobody)
    assert (data / "file").read_bytes() == b"whole"
    assert files_below(data) == ["file"]


def test_an_error_of_the_listener_is_not_taken_for_one_of_the_network(server, data):
    server.files["/file"] = b"x"

    def refuse(progress):
        raise ValueError("the listener's own")

    with pytest.raises(ValueError, match="the listener's own"):
        fetch(f"{server.address}/file", data / "file", tell=refuse)


def test_a_full_disk_is_no_network_error(server, data, monkeypatch):
    server.files["/file"] = b"x"

    def full(self, *args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    data.mkdir()
    monkeypatch.setattr(type(data), "replace", full)
    with pytest.raises(DataError, match=r"cannot be written to .*No space left on device.*Free some space") as error:
        fetch(f"{server.address}/file", data / "file", tell=tell_nobody)
    assert not isinstance(error.value, SourceUnavailable)
    assert files_below(data) == []


def test_downloads_go_to_the_cache_where_the_data_root_is_read_only(tmp_path, data, monkeypatch):
    assert download_root() == data
    monkeypatch.setattr(download.os, "access", lambda path, mode: False)
    assert download_root() == tmp_path / "cache" / "downloads"


def test_cifar100_comes_from_its_authors_first(server, data, content, monkeypatch):
    offer_archive(server, content, monkeypatch)
    offer_parquet(server, content)
    told = []
    store = sources.prepare("cifar100", progress=told.append)
    np.testing.assert_array_equal(store["train"].images_NHWC, content["train"].images_NHWC)
    assert server.asked == [ARCHIVE]
    assert told[0].phase == "Downloading cifar-100-python.tar.gz"
    assert files_below(data) == ["cifar-100-python.tar.gz"]


@pytest.mark.parametrize("trouble", ["404", "broken off", "wrong MD5"])
def test_cifar100_comes_from_hugging_face_when_the_authors_fail(trouble, server, data, content, monkeypatch):
    offer_archive(server, content, monkeypatch)
    offer_parquet(server, content)
    if trouble == "404":
        del server.files[ARCHIVE]
    elif trouble == "broken off":
        server.missing_bytes[ARCHIVE] = 10
    else:
        server.files[ARCHIVE] += b"x"
    store = sources.prepare("cifar100")
    np.testing.assert_array_equal(store["test"].images_NHWC, content["test"].images_NHWC)
    assert server.asked == [ARCHIVE, *PARQUETS.values()]
    assert files_below(data) == ["test-00000-of-00001.parquet", "train-00000-of-00001.parquet"]


def test_when_all_addresses_fail_the_message_says_what_one_can_do(server, data, content):
    offer_parquet(server, content)
    del server.files[PARQUETS["test"]]
    with pytest.raises(SourceUnavailable) as error:
        sources.prepare("cifar100")
    message = str(error.value)
    assert f"{server.address}{ARCHIVE}: HTTP 404" in message
    assert f"{server.address}{PARQUETS['test']}: HTTP 404" in message
    assert str(data / "cifar-100-python.tar.gz") in message
    assert "shapes" in message


def test_the_half_that_came_is_not_fetched_again(server, data, content):
    offer_parquet(server, content)
    test_file = server.files.pop(PARQUETS["test"])
    with pytest.raises(SourceUnavailable):
        sources.prepare("cifar100")
    server.files[PARQUETS["test"]] = test_file
    server.asked.clear()
    sources.prepare("cifar100")
    assert server.asked == [ARCHIVE, PARQUETS["test"]]


def test_a_damaged_archive_is_replaced_by_a_good_one(server, data, content, monkeypatch):
    offer_archive(server, content, monkeypatch)
    data.mkdir()
    (data / "cifar-100-python.tar.gz").write_bytes(b"half")
    sources.prepare("cifar100")
    assert (data / "cifar-100-python.tar.gz").read_bytes() == server.files[ARCHIVE]


def test_what_was_downloaded_into_the_cache_is_found_again(server, data, tmp_path, content, monkeypatch):
    monkeypatch.setattr(download.os, "access", lambda path, mode: False)
    offer_archive(server, content, monkeypatch)
    sources.prepare("cifar100")
    assert not data.exists()
    assert (tmp_path / "cache" / "downloads" / "cifar-100-python.tar.gz").is_file()
    shown = sources.describe("cifar100")
    assert shown.state == "prepared"
    for file in shown.store_folder.iterdir():
        file.unlink()
    server.asked.clear()
    sources.prepare("cifar100")
    assert server.asked == []
