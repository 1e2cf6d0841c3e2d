"""The HTTP interface as programs meet it: the dashboard's own server on a port of this machine, its prediction process, the shipped run."""

import http.client
import io
import json
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

from cifar_tl.answers import Answer, Asked, Framing
from cifar_tl.data.decode import MAX_BYTES
from cifar_tl.inference import Predictor
from cifar_tl.paths import APP_FILE, PROJECT_ROOT
from tests.browser.conftest import StartApp

SERVE_FILE = PROJECT_ROOT / "serve.py"
RUNS = PROJECT_ROOT / "checkpoints"
DEMO = "demo-efficientnet_lite0-cifar100"
TOKEN = "a-token-for-tests-0123456789"
ON = {"CIFAR_TL_HTTP": "1", "CIFAR_TL_CHECKPOINTS": str(RUNS)}
SECONDS = 120  # the first prediction starts a process that imports torch
PNG = {"Content-Type": "image/png"}


def picture(seed: int, width: int = 60, height: int = 40) -> bytes:
    """A PNG of a coloured gradient."""
    random = np.random.default_rng(seed)
    corners = Image.fromarray(random.integers(0, 256, (2, 2, 3), np.uint8))
    buffer = io.BytesIO()
    corners.resize((width, height), Image.Resampling.BICUBIC).save(buffer, "PNG")
    return buffer.getvalue()


def form(files: list[tuple[str, bytes]]) -> tuple[bytes, dict[str, str]]:
    head = 'Content-Disposition: form-data; name="file"; filename="{}"\r\n\r\n'
    parts = [b"--XX\r\n" + head.format(name).encode() + data + b"\r\n" for name, data in files]
    return b"".join([*parts, b"--XX--\r\n"]), {"Content-Type": "multipart/form-data; boundary=XX"}


def call(url: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> tuple[int, Any]:
    """(status, JSON) of a GET, or of a POST where there is a body."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, headers or {}), timeout=SECONDS) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def page(url: str) -> str:
    with urllib.request.urlopen(url, timeout=SECONDS) as answer:
        assert answer.headers.get_content_type() == "text/html"
        return answer.read().decode()


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartApp]:
    start = StartApp(tmp_path_factory.mktemp("servers"))
    yield start
    start.stop_all()


@pytest.fixture(scope="module")
def server(start: StartApp) -> str:
    return start(SERVE_FILE, **ON)


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor.from_run(RUNS / DEMO)


def assert_same(told: dict[str, Any], answer: Answer) -> None:
    """What came over HTTP is what the engine answers: the same names in the same order, up to rounding."""
    assert (told["name"], told["error"]) == (answer.name, answer.error or None)
    assert [item["class"] for item in told["classes"]] == [item.class_name for item in answer.classes]
    assert [item["superclass"] for item in told["classes"]] == [item.superclass_name for item in answer.classes]
    assert [item["probability"] for item in told["classes"]] == pytest.approx([item.probability for item in answer.classes], abs=2e-3)
    assert [item["superclass"] for item in told["superclasses"]] == [item.superclass_name for item in answer.superclasses]
    assert told["familiarity"] == pytest.approx(answer.familiarity, abs=2e-3)


def test_one_picture_as_bytes_gets_what_the_engine_answers(server: str, predictor: Predictor) -> None:
    status, told = call(f"{server}/api/predict?run={DEMO}&top_k=3", picture(1), PNG)
    (answer,) = predictor.answer([("picture", picture(1))], Asked(3))
    assert (status, told["run_id"], len(told["files"])) == (200, DEMO, 1)
    assert_same(told["files"][0], answer)


def test_several_pictures_get_what_the_engine_answers_and_one_that_is_none_says_so(server: str, predictor: Predictor) -> None:
    files = [("a.png", picture(1)), ("notes.txt", b"no picture"), ("b.png", picture(2))]
    status, told = call(f"{server}/api/predict?run={DEMO}&framing=whole&average_flips=false", *form(files))
    answers = list(predictor.answer(files, Asked(5, Framing.WHOLE, False)))
    assert status == 200
    assert answers[1].error
    for one, answer in zip(told["files"], answers, strict=True):
        if answer.error:
            assert (one["name"], one["error"], one["classes"]) == (answer.name, answer.error, [])
        else:
            assert_same(one, answer)


def test_the_run_is_listed_and_the_process_lives(server: str) -> None:
    call(f"{server}/api/predict?run={DEMO}", picture(1), PNG)
    status, told = call(f"{server}/api/runs")
    (row,) = [row for row in told["runs"] if row["id"] == DEMO]
    assert (status, row["status"], row["classes"], row["has_weights"]) == (200, "completed", 100, True)
    assert row["test_accuracy"] == pytest.approx(0.8305)
    assert call(f"{server}/api/health")[1]["prediction_process"] is True


def test_the_pages_are_served_beside_it(server: str) -> None:
    for path in ("", "/runs", "/predict"):
        assert '<div id="root">' in page(f"{server}{path}")
    assert call(f"{server}/api/nothing") == (404, {"error": "Not Found"})


def test_torch_stays_out_of_the_dashboards_process(start: StartApp, server: str) -> None:
    call(f"{server}/api/predict?run={DEMO}", picture(1), PNG)
    served = start.process_of(server)
    assert "libtorch" not in Path(f"/proc/{served.pid}/maps").read_text()


def test_many_callers_at_once_get_answers_or_are_told_to_come_again_and_the_server_answers_meanwhile(server: str) -> None:
    with ThreadPoolExecutor(12) as pool:
        asked = [pool.submit(call, f"{server}/api/predict?run={DEMO}", *form([("a.png", picture(1))] * 32)) for _ in range(12)]
        health = [call(f"{server}/api/health")[0] for _ in range(20)]
        assert not all(future.done() for future in asked)
        answers = [future.result() for future in asked]
    assert health == [200] * 20
    assert {status for status, _ in answers} <= {200, 503}
    assert {len(told["files"]) for status, told in answers if status == 200} == {32}


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.png", picture(1))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("body", "headers", "status", "words"),
    [
        (picture(1)[:-40], PNG, 422, "cut off"),
        (zipped(), PNG, 422, "not a picture"),
        (b"", PNG, 422, "empty"),
        (bytes(MAX_BYTES + 1), PNG, 413, "32 MiB"),
        (*form([("a.png", bytes(MAX_BYTES)), ("b.png", bytes(MAX_BYTES))]), 413, "64 MiB"),
        (*form([("a.png", bytes(MAX_BYTES + 1))]), 422, "at most 32 MiB"),
        (picture(1), {"Content-Type": "text/html"}, 415, "text/html"),
        (form([("a.png", picture(1))])[0][:-30], form([])[1], 400, "multipart"),
        (picture(1), form([])[1], 400, "multipart"),
        (form([("a.png", picture(1))])[0], PNG, 422, "not a picture"),
    ],
    ids=["cut", "zip", "empty", "large", "large-form", "large-part", "html", "cut-form", "no-form", "form-as-picture"],
)
def test_hostile_bodies_get_one_line_and_the_server_stays_up(
    server: str, body: bytes, headers: dict[str, str], status: int, words: str
) -> None:
    answered, told = call(f"{server}/api/predict?run={DEMO}", body, headers)
    assert (answered, list(told)) == (status, ["error"])
    assert words in told["error"]
    assert "\n" not in told["error"]
    assert call(f"{server}/api/health")[0] == 200


def test_a_body_without_announced_length_is_stopped_at_the_bound(server: str) -> None:
    connection = http.client.HTTPConnection(urlsplit(server).netloc, timeout=SECONDS)
    chunks = (bytes(2**20) for _ in range(40))
    connection.request("POST", f"/api/predict?run={DEMO}", chunks, PNG, encode_chunked=True)
    answer = connection.getresponse()
    assert (answer.status, json.load(answer)) == (413, {"error": "The body is too large: at most 32 MiB are taken."})
    connection.close()


def test_a_caller_who_hangs_up_does_no_harm(start: StartApp, server: str) -> None:
    for _ in range(8):  # more than there are places
        connection = http.client.HTTPConnection(urlsplit(server).netloc, timeout=SECONDS)
        connection.putrequest("POST", f"/api/predict?run={DEMO}")
        connection.putheader("Content-Type", "image/png")
        connection.putheader("Content-Length", "1000000")
        connection.endheaders(b"half a picture")
        connection.close()
    while call(f"{server}/api/predict?run={DEMO}", picture(1), PNG)[0] == 503:  # until the server has noticed all of them
        pass
    assert "Traceback" not in start.log_of(server)


@pytest.mark.parametrize(("script", "environment"), [(APP_FILE, {"CIFAR_TL_HTTP": "1"}), (SERVE_FILE, {})], ids=["app.py", "serve.py"])
def test_it_is_off_unless_both_the_script_and_the_setting_ask_for_it(start: StartApp, script: Path, environment: dict[str, str]) -> None:
    address = start(script, **environment)
    assert '<div id="root">' in page(f"{address}/runs")
    assert '<div id="root">' in page(f"{address}/api/health")  # as for any path that Streamlit does not know
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(urllib.request.Request(f"{address}/api/predict?run={DEMO}", picture(1), PNG))
    assert refused.value.code == 405
    refused.value.close()


def test_a_server_for_others_refuses_without_a_token_and_says_so_in_its_log(start: StartApp) -> None:
    address = start(SERVE_FILE, bind="0.0.0.0", **ON)
    for path, body in (("health", None), ("runs", None), ("openapi.json", None), (f"predict?run={DEMO}", picture(1))):
        status, told = call(f"{address}/api/{path}", body, PNG)
        assert status == 503
        assert "CIFAR_TL_HTTP_TOKEN" in told["error"]
    assert '<div id="root">' in page(f"{address}/runs")
    assert "refuses every call" in start.log_of(address)


def test_a_server_for_others_answers_who_has_the_token_and_never_writes_it_down(start: StartApp) -> None:
    address = start(SERVE_FILE, bind="0.0.0.0", **ON, CIFAR_TL_HTTP_TOKEN=TOKEN)
    known = PNG | {"Authorization": f"Bearer {TOKEN}"}
    for path, body in (("health", None), ("runs", None), ("openapi.json", None), (f"predict?run={DEMO}", picture(1))):
        assert call(f"{address}/api/{path}", body, PNG)[0] == 401
        assert call(f"{address}/api/{path}", body, known)[0] == 200
    assert TOKEN not in start.log_of(address)


def test_secrets_turn_it_on_and_carry_the_token(start: StartApp, tmp_path: Path) -> None:
    (tmp_path / ".streamlit").mkdir()
    (tmp_path / ".streamlit" / "secrets.toml").write_text(f'[http]\nenabled = true\ntoken = "{TOKEN}"\n')
    address = start(SERVE_FILE, HOME=str(tmp_path))
    assert call(f"{address}/api/runs")[0] == 401
    assert call(f"{address}/api/runs", headers={"Authorization": f"Bearer {TOKEN}"}) == (200, {"runs": []})


def test_the_example_of_the_documentation_works(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.open(io.BytesIO(picture(1))).save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    example = (PROJECT_ROOT / "docs" / "http.md").read_text("utf-8").split("```python\n")[1].split("```")[0]
    exec(compile(example.replace("http://127.0.0.1:8501", server), "docs/http.md", "exec"), {})
    assert len(capsys.readouterr().out.splitlines()) == 5
