"""The rules of the HTTP interface, one at a time: who may call, what may be sent, what comes back. Its process is made up here."""

import asyncio
import io
import logging
from collections.abc import Coroutine, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.testclient import TestClient

from cifar_tl.answers import Answer, Asked, Framing, RankedClass, RankedSuperclass
from cifar_tl.errors import CifarTLError, PredictionProcessDied, RunInvalid
from cifar_tl.http import bodies, predictions, serving
from cifar_tl.http.predictions import MAX_REQUESTS, Predictions
from cifar_tl.http.settings import ENABLED, LOOPBACK_NAMES, HttpSettings, settings_from
from cifar_tl.http.settings import TOKEN as TOKEN_NAME
from cifar_tl.paths import PROJECT_ROOT, RunFolder
from tests.made_runs import make_run

RUN = "20260101-120000-efficientnet_lite0-shapes"
TOKEN = "a-token-for-tests-0123456789"
LOCAL = "http://127.0.0.1:8501"
BOUNDARY = {"Content-Type": "multipart/form-data; boundary=XX"}
PNG = {"Content-Type": "image/png"}
UNREADABLE = "This is not a picture."


def in_a_loop(story: Coroutine[Any, Any, object]) -> None:
    """In a thread of its own: where browser tests ran before, Playwright's loop runs in this one."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, story).result()


@dataclass
class MadeProcess:
    """Answers at once: that a file is no picture if it does not begin like a PNG. Notes what it is asked."""

    asked: list[tuple[Any, ...]] = field(default_factory=list)
    error: Exception | None = None
    is_alive: bool = False

    def submit(self, function: str, *args: Any) -> Future[Any]:
        assert function == "cifar_tl.inference:predict_files"
        self.asked.append(args)
        future: Future[Any] = Future()
        if self.error:
            future.set_exception(self.error)
        else:
            future.set_result([made_answer(name, data) for name, data in args[1]])
        return future


def made_answer(name: str, data: bytes) -> Answer:
    if not data.startswith(b"\x89PNG"):
        return Answer(name, error=UNREADABLE)
    classes = (RankedClass("otter", "aquatic_mammals", 0.75), RankedClass("seal", None, 0.25))
    return Answer(name, classes, superclasses=(RankedSuperclass("aquatic_mammals", 1.0),), familiarity=0.5, preview=b"x", seconds=0.1)


@pytest.fixture(autouse=True)
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run that can answer."""
    monkeypatch.setenv("CIFAR_TL_CHECKPOINTS", str(tmp_path / "checkpoints"))
    make_run(tmp_path / "checkpoints", run_id=RUN, name="Shapes").best_weights.write_bytes(b"weights")
    return tmp_path / "checkpoints"


@pytest.fixture
def process() -> MadeProcess:
    return MadeProcess()


def client_of(process: MadeProcess, url: str = LOCAL, **settings: Any) -> TestClient:
    routes = serving.api_routes(HttpSettings(**({"is_enabled": True, "address": "127.0.0.1"} | settings)), process=lambda: process)
    return TestClient(Starlette(routes=routes), base_url=url, raise_server_exceptions=False)


@pytest.fixture
def client(process: MadeProcess) -> Iterator[TestClient]:
    with client_of(process) as client:
        yield client


@pytest.fixture
def png() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def error_of(answer: Any, status: int) -> str:
    """The one line of a refusal, after looking that it is one."""
    assert answer.status_code == status, answer.text
    assert list(answer.json()) == ["error"]
    line = answer.json()["error"]
    assert line
    assert "\n" not in line
    return line


# On or off


def test_it_is_off_by_default(caplog: pytest.LogCaptureFixture) -> None:
    assert serving.routes({}) == []
    assert "CIFAR_TL_HTTP=1 turns it on" in caplog.text


@pytest.mark.parametrize("value", ["1", "true", "ON", "yes"])
def test_the_environment_turns_it_on(value: str) -> None:
    assert [route.path for route in serving.routes({"CIFAR_TL_HTTP": value})] == ["/api", "/api"]


def test_a_switch_that_is_neither_on_nor_off_leaves_it_off_and_the_log_says_so(caplog: pytest.LogCaptureFixture) -> None:
    assert serving.routes({"CIFAR_TL_HTTP": "maybe"}) == []
    assert "'maybe'" in caplog.text


def test_secrets_turn_it_on_and_the_environment_goes_first() -> None:
    secrets = {"enabled": True, "token": TOKEN}
    assert settings_from({}, secrets, "127.0.0.1", ["localhost"]) == HttpSettings(True, TOKEN, "127.0.0.1", ("localhost",))
    mixed = settings_from({"CIFAR_TL_HTTP": "0", "CIFAR_TL_HTTP_TOKEN": "another-token-123"}, secrets, None, None)
    assert (mixed.is_enabled, mixed.token) == (False, "another-token-123")


def test_it_lies_below_the_base_url_of_the_pages() -> None:
    assert [route.path for route in serving.api_routes(HttpSettings(), "/team/models/")] == ["/team/models/api"] * 2


# Who may call


@pytest.mark.parametrize("path", ["/api", "/api/", "/api/nothing", "/api/docs", "/api/redoc"])
def test_an_unknown_path_is_json_and_404(client: TestClient, path: str) -> None:
    assert error_of(client.get(path), 404) == "Not Found"


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8501", "127.0.0.1.evil.example", "127.0.0.1@evil.example", "", "a b", "[::1"]
)
def test_a_foreign_host_name_is_refused(client: TestClient, host: str) -> None:
    assert "server.allowedHosts" in error_of(client.get("/api/health", headers={"Host": host}), 403)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:9999", "localhost:8501", "LOCALHOST", "[::1]:8501"])
def test_the_names_of_this_machine_are_taken(client: TestClient, host: str) -> None:
    assert client.get("/api/health", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    ("hosts", "host", "status"),
    [
        (("models.example",), "models.example:8501", 200),
        (("models.example",), "other.example", 403),
        (("*.example",), "models.example", 200),
        (("*.example",), "example", 403),
        (("*",), "anything.test", 200),
        ((), "anything.test", 200),
    ],
)
def test_names_from_the_settings_are_taken_by_who_has_the_token(process: MadeProcess, hosts: Any, host: str, status: int) -> None:
    client = client_of(process, hosts=hosts, token=TOKEN)
    assert client.get("/api/health", headers={"Host": host, "Authorization": f"Bearer {TOKEN}"}).status_code == status


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://["},
        {"Origin": ""},
        {"Origin": "http://127.0.0.1:3000"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_web_pages_of_other_sites_are_refused_even_with_the_token(process: MadeProcess, headers: dict[str, str], png: bytes) -> None:
    client = client_of(process, token=TOKEN)
    headers = headers | {"Authorization": f"Bearer {TOKEN}"}
    assert "other sites" in error_of(client.get("/api/runs", headers=headers), 403)
    error_of(client.post(f"/api/predict?run={RUN}", content=png, headers=headers | PNG), 403)
    assert not process.asked


def test_the_dashboards_own_pages_may_call(client: TestClient) -> None:
    assert client.get("/api/health", headers={"Origin": LOCAL, "Sec-Fetch-Site": "same-origin"}).status_code == 200


@pytest.mark.parametrize(
    ("address", "hosts"),
    [
        ("0.0.0.0", LOOPBACK_NAMES),
        ("", LOOPBACK_NAMES),
        ("::", LOOPBACK_NAMES),
        ("192.168.1.5", LOOPBACK_NAMES),
        ("127.0.0.1", ("a.example",)),
    ],
)
def test_without_a_token_nobody_is_served_where_others_could_call(process: MadeProcess, address: str, hosts: Any) -> None:
    client = client_of(process, address=address, hosts=hosts)
    for path in ("/api/health", "/api/runs", "/api/openapi.json", "/api/nothing"):
        assert "CIFAR_TL_HTTP_TOKEN" in error_of(client.get(path), 503)


@pytest.mark.parametrize("address", ["127.0.0.1", "localhost", "::1", "127.8.8.8"])
def test_on_this_machine_alone_no_token_is_needed(process: MadeProcess, address: str) -> None:
    assert client_of(process, address=address).get("/api/health").status_code == 200


def test_a_server_that_listens_elsewhere_than_its_settings_say_needs_a_token(process: MadeProcess) -> None:
    client = client_of(process, "http://192.168.1.5:8501")
    assert "token" in error_of(client.get("/api/health", headers={"Host": "localhost"}), 503)


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "X-Real-IP"])
def test_a_call_through_a_proxy_needs_a_token(client: TestClient, header: str) -> None:
    assert "token" in error_of(client.get("/api/health", headers={header: "10.0.0.1"}), 503)


@pytest.mark.parametrize("said", ["", "Bearer", "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x", TOKEN, "Bearer ü"])
def test_a_missing_or_wrong_token_is_refused_on_every_path(process: MadeProcess, said: str) -> None:
    client = client_of(process, token=TOKEN)
    for path in ("/api/health", "/api/runs", "/api/openapi.json", "/api/nothing"):
        answer = client.get(path, headers={"Authorization": said.encode("latin-1")})
        error_of(answer, 401)
        assert answer.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
def test_the_right_token_is_let_through(process: MadeProcess, scheme: str) -> None:
    client = client_of(process, token=TOKEN, address="0.0.0.0")
    for path in ("/api/health", "/api/runs", "/api/openapi.json"):
        assert client.get(path, headers={"Authorization": f"{scheme} {TOKEN}"}).status_code == 200


@pytest.mark.parametrize("token", ["short", "fifteen-charact", "with a space in it", "gr\u00fc\u00dfe-aus-der-ferne"])
def test_a_token_that_is_easily_guessed_or_cannot_be_sent_is_refused_with_what_to_do(process: MadeProcess, token: str) -> None:
    line = error_of(client_of(process, token=token).get("/api/health"), 503)
    assert "16 characters" in line
    assert token not in line


def test_the_log_says_that_every_call_is_refused_and_never_the_token(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_set = serving.config.get_option
    monkeypatch.setattr(serving.config, "get_option", lambda name: "0.0.0.0" if name == "server.address" else as_set(name))
    caplog.set_level(logging.DEBUG)
    assert len(serving.routes({"CIFAR_TL_HTTP": "1"})) == 2
    assert "refuses every call" in caplog.text
    caplog.clear()
    assert len(serving.routes({"CIFAR_TL_HTTP": "1", "CIFAR_TL_HTTP_TOKEN": TOKEN})) == 2
    assert caplog.text == ""
    assert TOKEN not in repr(HttpSettings(token=TOKEN))


def test_answers_are_not_kept_and_not_taken_for_pages(client: TestClient) -> None:
    headers = client.get("/api/health").headers
    assert (headers["cache-control"], headers["x-content-type-options"]) == ("no-store", "nosniff")


# What comes back


def test_health_tells_the_version_and_whether_the_process_lives(client: TestClient, process: MadeProcess) -> None:
    from cifar_tl import __version__

    assert client.get("/api/health").json() == {"ok": True, "version": __version__, "prediction_process": False}
    process.is_alive = True
    assert client.get("/api/health").json()["prediction_process"] is True


def test_runs_are_listed_newest_first_damaged_ones_too(client: TestClient, runs: Path) -> None:
    make_run(runs, run_id="20260102-120000-b", status="running")
    damaged = make_run(runs, run_id="20260103-120000-c")
    damaged.config.write_text("{")
    rows = client.get("/api/runs").json()["runs"]
    assert [row["id"] for row in rows] == [damaged.run_id, "20260102-120000-b", RUN]
    assert [row["status"] for row in rows] == ["failed", "lost", "completed"]
    assert [row["has_weights"] for row in rows] == [False, False, True]
    assert (rows[0]["backbone"], rows[0]["classes"], rows[1]["test_accuracy"]) == (None, None, None)
    assert rows[2] | {"test_accuracy": 0, "data": ""} == {
        "id": RUN,
        "name": "Shapes",
        "status": "completed",
        "data": "",
        "backbone": "efficientnet_lite0",
        "classes": 20,
        "test_accuracy": 0,
        "has_weights": True,
    }
    assert 0 < rows[2]["test_accuracy"] <= 1


def test_the_openapi_document_tells_every_path_query_and_error(client: TestClient) -> None:
    document = client.get("/api/openapi.json").json()
    assert document["servers"] == [{"url": "/api"}]
    assert set(document["paths"]) == {"/predict", "/runs", "/health"}
    post = document["paths"]["/predict"]["post"]
    assert {item["name"] for item in post["parameters"]} == {"run", "top_k", "framing", "average_flips"}
    assert set(post["requestBody"]["content"]) == {"image/*", "application/octet-stream", "multipart/form-data"}
    assert set(post["responses"]) == {"200", "400", "401", "403", "404", "408", "409", "413", "415", "422", "503"}
    assert "class" in document["components"]["schemas"]["ClassShare"]["properties"]


def test_the_documentation_names_every_path_query_setting_and_error(client: TestClient) -> None:
    text = (PROJECT_ROOT / "docs" / "http.md").read_text("utf-8")
    document = client.get("/api/openapi.json").json()
    post = document["paths"]["/predict"]["post"]
    schemas = document["components"]["schemas"]
    assert all(f"/api{path}" in text for path in document["paths"])
    assert all(f"| `{item['name']}` |" in text for item in post["parameters"])
    assert all(f"| {status} |" in text for status in post["responses"] if status != "200")
    assert all(f"`{name}`" in text for schema in ("Run", "Health") for name in schemas[schema]["properties"])
    assert f"{ENABLED}=1" in text
    assert f"{TOKEN_NAME}=" in text


def test_the_bytes_of_one_picture_are_answered(client: TestClient, process: MadeProcess, runs: Path, png: bytes) -> None:
    answer = client.post(f"/api/predict?run={RUN}", content=png, headers=PNG)
    assert answer.json() == {
        "run_id": RUN,
        "files": [
            {
                "name": "picture",
                "classes": [
                    {"class": "otter", "superclass": "aquatic_mammals", "probability": 0.75},
                    {"class": "seal", "superclass": None, "probability": 0.25},
                ],
                "superclasses": [{"superclass": "aquatic_mammals", "probability": 1.0}],
                "familiarity": 0.5,
                "seconds": 0.1,
                "error": None,
            }
        ],
    }
    assert process.asked == [(str(runs / RUN), [("picture", png)], Asked())]


def test_several_pictures_are_answered_in_order_and_one_that_cannot_be_read_says_why(
    client: TestClient, process: MadeProcess, png: bytes
) -> None:
    files = [("file", ("a\u202e b.png", png)), ("other", ("c.txt", b"no")), ("file", ("", png))]
    answer = client.post(f"/api/predict?run={RUN}", files=files[:2]).json()
    assert [(file["name"], file["error"]) for file in answer["files"]] == [("a b.png", None), ("c.txt", UNREADABLE)]
    assert [data for _, data in process.asked[0][1]] == [png, b"no"]


def test_the_query_says_how_to_answer(client: TestClient, process: MadeProcess, png: bytes) -> None:
    client.post(f"/api/predict?run={RUN}&top_k=100&framing=whole&average_flips=false", content=png, headers=PNG)
    assert process.asked[0][2] == Asked(100, Framing.WHOLE, False)


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("", "run"),
        *((f"run={RUN}&{wrong}", wrong.split("=")[0]) for wrong in ("top_k=0", "top_k=101", "top_k=x", "average_flips=2", "topk=3")),
        (f"run={RUN}&framing=center", "framing"),
    ],
)
def test_a_wrong_query_is_refused_by_name(client: TestClient, process: MadeProcess, png: bytes, query: str, named: str) -> None:
    assert error_of(client.post(f"/api/predict?{query}", content=png, headers=PNG), 422).startswith(f"{named}: ")
    assert not process.asked


@pytest.mark.parametrize("run", ["nope", "../etc", "a/b", "%00", ".hidden", "x" * 152])
def test_an_unknown_run_is_404_and_tells_no_path_of_this_machine(client: TestClient, runs: Path, png: bytes, run: str) -> None:
    line = error_of(client.post(f"/api/predict?run={run}", content=png, headers=PNG), 404)
    assert "/api/runs" in line
    assert str(runs) not in line


def test_a_run_without_weights_is_409(client: TestClient, runs: Path, png: bytes) -> None:
    make_run(runs, run_id="fresh", status="empty")
    assert "no weights yet" in error_of(client.post("/api/predict?run=fresh", content=png, headers=PNG), 409)


@pytest.mark.parametrize(
    ("error", "status"), [(RunInvalid("damaged weights"), 409), (PredictionProcessDied("ended"), 503), (CifarTLError("unexpected"), 500)]
)
def test_what_the_process_cannot_do_is_told(client: TestClient, process: MadeProcess, png: bytes, error: Exception, status: int) -> None:
    process.error = error
    assert error_of(client.post(f"/api/predict?run={RUN}", content=png, headers=PNG), status) == str(error)


def test_an_error_of_our_own_is_json_too(client: TestClient, process: MadeProcess, png: bytes) -> None:
    process.error = RuntimeError("with secrets of the machine")
    line = error_of(client.post(f"/api/predict?run={RUN}", content=png, headers=PNG), 500)
    assert "RuntimeError" in line
    assert "secrets" not in line


def test_a_file_that_is_no_picture_is_422_with_its_line(client: TestClient) -> None:
    assert error_of(client.post(f"/api/predict?run={RUN}", content=b"PK\3\4", headers=PNG), 422) == UNREADABLE
    files = [("file", (name, b"x")) for name in ("a.png", "b.png")]
    assert error_of(client.post(f"/api/predict?run={RUN}", files=files), 422) == f"a.png: {UNREADABLE} b.png: {UNREADABLE}"


# What may be sent


def test_a_body_that_is_announced_or_turns_out_too_large_never_reaches_the_process(
    client: TestClient, process: MadeProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "MAX_BYTES", 2**20)
    monkeypatch.setattr(bodies, "MAX_BODY_BYTES", 2**21)
    url, chunk = f"/api/predict?run={RUN}", bytes(2**18)
    assert "1 MiB" in error_of(client.post(url, content=bytes(2**20 + 1), headers=PNG), 413)
    assert "1 MiB" in error_of(client.post(url, content=iter([chunk] * 5), headers=PNG), 413)
    assert "2 MiB" in error_of(client.post(url, files={"file": ("a.png", bytes(2**21))}), 413)
    assert not process.asked


def test_thirty_two_pictures_are_taken_and_no_more(client: TestClient, process: MadeProcess, png: bytes) -> None:
    files = [("file", (f"{number}.png", png)) for number in range(33)]
    assert len(client.post(f"/api/predict?run={RUN}", files=files[:32]).json()["files"]) == 32
    assert "32 pictures" in error_of(client.post(f"/api/predict?run={RUN}", files=files), 413)
    assert len(process.asked) == 1


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": kind}
        for kind in ("application/json", "text/plain", "application/x-www-form-urlencoded", "application/zip", "nonsense")
    ]
    + [PNG | {"Content-Encoding": "gzip"}, {"Content-Type": "multipart/form-data; boundary=XX; charset=punycode"}],
)
def test_other_types_of_content_are_refused(client: TestClient, process: MadeProcess, png: bytes, headers: dict[str, str]) -> None:
    error_of(client.post(f"/api/predict?run={RUN}", content=png, headers=headers), 415)
    assert not process.asked


def part(head: str, body: str = "x") -> str:
    return f"--XX\r\n{head}\r\n\r\n{body}\r\n"


FILE = part('Content-Disposition: form-data; name="f"; filename="a.png"')


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("", 400),
        ("--XX--\r\n", 400),
        ("no boundary at all", 400),
        (FILE, 400),  # without its end
        (FILE[:-8], 400),
        (FILE + FILE[:-4], 400),  # the second is cut off: the first alone would be half an answer
        (part("Content-Type: image/png") + "--XX--\r\n", 400),  # a part without a name
        (part('Content-Disposition: form-data; name="f"') + "--XX--\r\n", 400),  # a field that is no file
        (part('Content-Disposition: form-data; name="f"', "x" * 70_000) + "--XX--\r\n", 400),
        (part('Content-Disposition: form-data; name="f"') * 40 + "--XX--\r\n", 400),
        (part("X" * 300_000 + ": 1") + "--XX--\r\n", 400),
        (FILE * 40 + "--XX--\r\n", 413),
    ],
)
def test_multipart_bodies_that_lie_are_refused_in_one_line(client: TestClient, process: MadeProcess, body: str, status: int) -> None:
    error_of(client.post(f"/api/predict?run={RUN}", content=body.encode(), headers=BOUNDARY), status)
    assert not process.asked


@pytest.mark.parametrize("kind", ["multipart/form-data", "multipart/form-data; boundary=", f"multipart/form-data; boundary={'B' * 9000}"])
def test_a_multipart_body_without_a_usable_boundary_is_refused(client: TestClient, kind: str) -> None:
    error_of(client.post(f"/api/predict?run={RUN}", content=FILE.encode(), headers={"Content-Type": kind}), 400)


def test_a_body_that_does_not_arrive_is_given_up(process: MadeProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "BODY_SECONDS", 0.01)
    monkeypatch.setattr("cifar_tl.http.guard.MOST_DISCARDING_SECONDS", 0.01)
    (route, _) = serving.api_routes(HttpSettings(is_enabled=True, address="127.0.0.1"), process=lambda: process)
    sent: list[Any] = []

    async def receive() -> Any:
        if not sent:
            await asyncio.Event().wait()  # for ever

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/predict", "root_path": "", "query_string": f"run={RUN}".encode()}
    scope |= {"headers": [(b"host", b"localhost"), (b"content-type", b"image/png")], "server": ("127.0.0.1", 8501), "http_version": "1.1"}
    in_a_loop(route.app(scope, receive, send))
    assert sent[0]["status"] == 408
    assert not process.asked


# One after the other


@dataclass
class SlowProcess:
    """Answers when the test says so."""

    futures: list[Future[Any]] = field(default_factory=list)

    def submit(self, function: str, *args: Any) -> Future[Any]:
        self.futures.append(Future())
        return self.futures[-1]


async def nothing() -> list[tuple[str, bytes]]:
    return []


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


def test_whoever_comes_when_all_places_are_taken_is_told_to_come_again(tmp_path: Path) -> None:
    async def story() -> None:
        process = SlowProcess()
        desk, folder = Predictions(lambda: process), RunFolder(tmp_path)
        waiting = [asyncio.create_task(desk.answers(folder, nothing, Asked())) for _ in range(MAX_REQUESTS)]
        await until(lambda: len(process.futures) == MAX_REQUESTS)
        with pytest.raises(HTTPException) as refusal:
            await desk.answers(folder, nothing, Asked())
        assert refusal.value.status_code == 503
        assert refusal.value.headers == {"Retry-After": "2"}
        process.futures[0].set_result([])
        assert await waiting[0] == []
        again = asyncio.create_task(desk.answers(folder, nothing, Asked()))
        await until(lambda: len(process.futures) == MAX_REQUESTS + 1)
        for future in process.futures[1:]:
            future.set_result([])
        await asyncio.gather(again, *waiting)

    in_a_loop(story())


def test_an_answer_that_does_not_come_is_503_and_its_request_withdrawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predictions, "WAIT_SECONDS", 0.01)
    process = SlowProcess()
    with pytest.raises(HTTPException) as refusal:
        in_a_loop(Predictions(lambda: process).answers(RunFolder(tmp_path), nothing, Asked()))
    assert refusal.value.status_code == 503
    assert process.futures[0].cancelled()


def test_a_place_stays_taken_while_the_process_is_still_at_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predictions, "WAIT_SECONDS", 0.01)
    monkeypatch.setattr(predictions, "MAX_REQUESTS", 1)

    class Working(SlowProcess):
        def submit(self, function: str, *args: Any) -> Future[Any]:
            future = super().submit(function, *args)
            assert future.set_running_or_notify_cancel()
            return future

    async def refused(desk: Predictions) -> str:
        with pytest.raises(HTTPException) as refusal:
            await desk.answers(RunFolder(tmp_path), nothing, Asked())
        return str(refusal.value.detail)

    async def story() -> None:
        process = Working()
        desk = Predictions(lambda: process)
        assert "no answer came" in await refused(desk)
        assert "are being answered" in await refused(desk)
        process.futures[0].set_result([])
        await asyncio.sleep(0)  # the place is given back in the event loop
        assert "no answer came" in await refused(desk)

    in_a_loop(story())


def test_a_body_that_is_refused_gives_its_place_back(client: TestClient, png: bytes) -> None:
    for _ in range(MAX_REQUESTS + 1):
        error_of(client.post(f"/api/predict?run={RUN}", content=png, headers={"Content-Type": "text/plain"}), 415)
    assert client.post(f"/api/predict?run={RUN}", content=png, headers=PNG).status_code == 200
