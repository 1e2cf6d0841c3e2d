"""Weights: downloaded whole and checked, or refused with the way on. A loopback server stands in for the publisher."""

import hashlib
import http.server
import threading

import pytest
import torch
import torchvision

from cifar_tl.errors import WeightsUnavailable
from cifar_tl.models import weights as weights_module
from cifar_tl.models.build import build_classifier
from cifar_tl.models.catalog import Backbone, Weights
from cifar_tl.models.weights import download, load_state, read_state


class _Publisher(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = self.server.files.get(self.path)
        if body is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(body) + self.server.missing_bytes))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def publisher():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Publisher)
    server.files, server.missing_bytes = {}, 0
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    server.address = f"http://127.0.0.1:{server.server_port}"
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def resnet_file(tmp_path):
    """(bytes, name with hash) of a resnet18 state dict made here."""
    torch.manual_seed(0)
    path = tmp_path / "made.pth"
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), path)
    data = path.read_bytes()
    return data, f"resnet18-{hashlib.sha256(data).hexdigest()[:8]}.pth"


@pytest.fixture
def published(publisher, resnet_file, tmp_path, monkeypatch):
    """resnet18 with weights that the loopback server publishes; TORCH_HOME is empty."""
    data, name = resnet_file
    publisher.files[f"/{name}"] = data
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    mean = (0.485, 0.456, 0.406)
    chosen = Weights("MADE", f"{publisher.address}/{name}", name, len(data) / 2**20, 0.7, 0.9, 224, mean, mean)
    entry = Backbone("resnet18", "torchvision", weights=(chosen,))
    for module in ("cifar_tl.models.catalog", "cifar_tl.models.build"):
        monkeypatch.setattr(f"{module}.backbone", lambda _name: entry)
    return entry


def test_a_download_arrives_with_progress_and_is_used(published, tmp_path):
    told: list[tuple[int, int]] = []
    classifier = build_classifier("resnet18", weights="default", num_classes=5, image_size=64, progress=lambda *pair: told.append(pair))
    size = (tmp_path / "torch" / "hub" / "checkpoints" / published.weights[0].file_name).stat().st_size
    assert told[-1] == (size, size)
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    state = load_state(published, published.weights[0])
    assert torch.equal(classifier.stages[0][0].weight, state["conv1.weight"])


def test_a_second_use_downloads_nothing(published, publisher):
    load_state(published, published.weights[0])
    publisher.files.clear()
    assert load_state(published, published.weights[0])


def test_a_broken_transfer_leaves_nothing_and_can_be_repeated(published, publisher, tmp_path):
    publisher.missing_bytes = 1000
    with pytest.raises(WeightsUnavailable, match="could not be fetched"):
        load_state(published, published.weights[0])
    assert list((tmp_path / "torch").rglob("*.pth*")) == []
    publisher.missing_bytes = 0
    assert load_state(published, published.weights[0])


def test_a_file_that_is_not_what_its_name_says_is_refused(published, publisher, tmp_path):
    (path,) = publisher.files
    publisher.files[path] = b"something else"
    with pytest.raises(WeightsUnavailable, match="checksum"):
        load_state(published, published.weights[0])
    assert list((tmp_path / "torch").rglob("*.pth*")) == []


def test_without_network_the_message_names_address_place_and_the_way_on(tmp_path):
    path = tmp_path / "hub" / "resnet18-f37072fd.pth"
    with pytest.raises(WeightsUnavailable) as caught:
        download("http://127.0.0.1:1/resnet18-f37072fd.pth", path, "resnet18")
    for words in ("http://127.0.0.1:1/resnet18-f37072fd.pth", str(path), "efficientnet_lite0"):
        assert words in str(caught.value)


def test_a_missing_file_on_the_server_is_said(publisher, tmp_path):
    with pytest.raises(WeightsUnavailable, match="404"):
        download(f"{publisher.address}/absent.pth", tmp_path / "absent.pth", "resnet18")


@pytest.mark.parametrize("data", [b"", b"garbage", b"PK\x03\x04 half a zip"])
def test_a_damaged_file_is_named_and_not_run(data, tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(data)
    with pytest.raises(WeightsUnavailable, match=r"weights\.pth"):
        read_state(path)


def test_a_file_with_code_in_it_is_refused(tmp_path):
    path = tmp_path / "evil.pth"
    torch.save({"weight": _Evil()}, path)
    with pytest.raises(WeightsUnavailable, match="damaged"):
        read_state(path)


class _Evil:
    def __reduce__(self) -> tuple:
        return (exec, ("raise SystemExit('code from a weights file ran')",))


def test_weights_of_another_network_are_refused(published, tmp_path):
    path = tmp_path / "torch" / "hub" / "checkpoints" / published.weights[0].file_name
    path.parent.mkdir(parents=True)
    torch.save({"conv1.weight": torch.zeros(3)}, path)
    with pytest.raises(WeightsUnavailable, match="not those of resnet18"):
        build_classifier("resnet18", weights="default", num_classes=5, image_size=64)


def test_timm_without_network_fails_in_words(monkeypatch, tmp_path):
    def refuse(*_: object, **__: object) -> None:
        raise OSError("Network is unreachable")

    monkeypatch.setattr("cifar_tl.models.build._require_hub", lambda _name: None)
    monkeypatch.setattr("cifar_tl.models.build.timm.create_model", refuse)
    with pytest.raises(WeightsUnavailable, match="efficientnet_lite0"):
        build_classifier("timm:resnet18", weights="default", num_classes=3, image_size=64)


def test_an_unreachable_hub_is_found_out_at_once(monkeypatch, tmp_path):
    monkeypatch.setattr("cifar_tl.models.build.ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("cifar_tl.models.build.timm.create_model", lambda *_, **__: pytest.fail("timm was asked in vain"))
    with pytest.raises(WeightsUnavailable, match="refused"):
        build_classifier("timm:resnet18", weights="default", num_classes=3, image_size=64)


def test_a_package_with_other_tensors_is_refused(monkeypatch):
    monkeypatch.setattr("cifar_tl.models.build.load_state", lambda *_: {str(i): torch.zeros(1) for i in range(296)})
    with pytest.raises(WeightsUnavailable, match=r"requirements\.txt"):
        build_classifier("efficientnet_lite0", weights="default", num_classes=3, image_size=32)


def test_downloads_have_a_time_limit():
    assert 5 <= weights_module._TIMEOUT_SECONDS <= 60
