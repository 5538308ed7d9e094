"""The example server: the model's own answers, in batches, and one line for whatever else is sent to it."""

import asyncio
import functools
import importlib
import io
import os
import random
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import zlib
from pathlib import Path

import jax
import numpy as np
import pytest
import uvicorn
from frozen import CLASSES, written
from frozen_models import small_model
from PIL import Image, ImageOps
from starlette.testclient import TestClient

import plq
from plq.data.digits import load_digits
from plq.errors import UserError
from plq.layers.factory import QuantConfig
from plq.models.registry import Architecture
from plq.runtime.file_format import Frozen, encode
from plq.runtime.frozen import FrozenModel, from_frozen

FOLDER = Path(__file__).parents[1] / "examples" / "serving"
MODULES = ("serve", "app", "batcher", "picture")


@pytest.fixture(scope="module")
def example():
    """The example's modules by name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        yield {name: importlib.import_module(name) for name in MODULES}
    for name in MODULES:
        sys.modules.pop(name, None)


@functools.cache
def some_model() -> FrozenModel:
    """A small network on grey 9x9 images."""
    return small_model()


def some_images() -> np.ndarray:
    """Real digits, uint8 [16, 8, 8, 1]: not of the network's size."""
    return load_digits()[0][-16:]


def png(image: np.ndarray | Image.Image, kind: str = "PNG", **options) -> bytes:
    """An image file: of uint8 [height, width, 1 or 3], or of what Pillow holds."""
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.fixture(scope="module")
def client(example):
    limits = example["app"].Limits(batch=4, upload=100_000)
    with TestClient(example["app"].application(some_model(), "digits.plq", limits)) as client:
        yield client


def probabilities(images: np.ndarray) -> np.ndarray:
    return np.asarray(jax.nn.softmax(some_model()(images)))


def as_row(answer) -> np.ndarray:
    """The probabilities of an answer with all classes, in the order of the classes."""
    assert answer.status_code == 200, answer.text
    found = answer.json()["classes"]
    assert [entry["name"] for entry in found] == [some_model().class_names[entry["index"]] for entry in found]
    assert [entry["probability"] for entry in found] == sorted((e["probability"] for e in found), reverse=True)
    return np.array([entry["probability"] for entry in sorted(found, key=lambda entry: entry["index"])])


def test_the_answers_are_the_models(client):
    images = some_images()
    wanted = probabilities(images)
    assert np.ptp(wanted, 0).max() > 0.1  # images that differ
    for image, row in zip(images, wanted, strict=True):
        np.testing.assert_allclose(as_row(client.post("/predict?top=10", content=png(image))), row, atol=1e-5)
    sent = client.post("/predict?top=10", files={"any": ("photo.txt", png(images[3]), "text/plain")})
    np.testing.assert_allclose(as_row(sent), wanted[3], atol=1e-5)
    assert len(client.post("/predict", content=png(images[0])).json()["classes"]) == 5


def test_many_at_once_get_each_their_own(client):
    images = some_images()
    answers: list = [None] * len(images)
    before = client.get("/health").json()

    def send(index):
        answers[index] = client.post("/predict?top=10", content=png(images[index]))

    threads = [threading.Thread(target=send, args=(index,)) for index in range(len(images))]
    for step in (threading.Thread.start, threading.Thread.join):
        for thread in threads:
            step(thread)
    np.testing.assert_allclose([as_row(answer) for answer in answers], probabilities(images), atol=1e-5)
    after = client.get("/health").json()
    assert after["images"] - before["images"] == len(images) and after["at_work"] == 0


def batched(example, run, images, largest=4):
    """What a Batcher gives for images that arrive together, and the sizes of its runs."""
    sizes = []

    def counted(batch):
        sizes.append(len(batch))
        return run(batch)

    async def main():
        async with example["batcher"].Batcher(counted, images.shape[1:], largest, 0.05) as batcher:
            return await asyncio.gather(*map(batcher, images), return_exceptions=True)

    return asyncio.run(main()), sizes


def test_images_that_arrive_together_are_one_batch_of_a_fixed_size(example):
    images = np.arange(1, 8, dtype=np.uint8)[:, None]
    rows, sizes = batched(example, lambda batch: batch[:, 0] * 2, images)
    assert rows == [2 * n for n in range(1, 8)] and sizes == [4, 4]  # 4, and 3 padded to 4
    assert batched(example, lambda batch: batch[:, 0], images[:1]) == ([1], [1])
    assert batched(example, lambda batch: batch[:, 0], images[:6], largest=6)[1] == [6]
    assert [example["batcher"].batch_sizes(n) for n in (1, 2, 6, 16)] == [[1], [1, 2], [1, 2, 4, 6], [1, 2, 4, 8, 16]]


def test_a_batch_that_fails_is_not_the_end(example):
    def run(batch):
        if batch[0, 0] == 1:
            raise ValueError("no")
        return batch[:, 0]

    rows, sizes = batched(example, run, np.arange(1, 7, dtype=np.uint8)[:, None])
    assert all(isinstance(row, ValueError) for row in rows[:4]) and rows[4:] == [5, 6] and sizes == [4, 2]


def test_who_has_gone_is_left_out(example):
    async def main():
        seen = []
        run = lambda batch: seen.append(batch.copy()) or batch
        async with example["batcher"].Batcher(run, (1,), 4, 0.05) as batcher:
            gone, stays = (asyncio.ensure_future(batcher(np.array([n], np.uint8))) for n in (1, 2))
            await asyncio.sleep(0)
            gone.cancel()
            return await stays, seen

    row, seen = asyncio.run(main())
    assert row == [2] and [batch.tolist() for batch in seen] == [[[2]]]


def test_all_batch_sizes_are_compiled_before_the_first_request(example):
    shapes = []
    batcher = example["batcher"].Batcher(lambda batch: shapes.append(batch.shape) or batch, (3, 2), 6, 0.0)
    batcher.warm_up()
    assert shapes == [(1, 3, 2), (2, 3, 2), (4, 3, 2), (6, 3, 2)]


# Pictures.


@functools.cache
def colour_model() -> FrozenModel:
    architecture = Architecture("svhn", 10, QuantConfig("dorefa", 2, "clip", 2), width=0.02)
    return from_frozen(Frozen(written(architecture, (40, 40, 3)), CLASSES, "square", {}))


def gradient(mode: str) -> Image.Image:
    """60x20, brighter to the right."""
    return Image.fromarray(np.tile(np.arange(60, dtype=np.uint8) * 4, (20, 1))).convert(mode)


PICTURES = {
    "grey": ("L", "PNG", {}),
    "black and white": ("1", "PNG", {}),
    "grey, see-through": ("LA", "PNG", {}),
    "palette": ("P", "GIF", {}),
    "colour": ("RGB", "BMP", {}),
    "see-through": ("RGBA", "PNG", {}),
    "web": ("RGB", "WEBP", {"lossless": True}),
    "print": ("CMYK", "JPEG", {"quality": 95}),
}


@pytest.mark.parametrize("picture", PICTURES)
@pytest.mark.parametrize("model", [some_model, colour_model])
def test_every_kind_of_picture_becomes_what_the_network_takes(example, picture, model):
    mode, kind, options = PICTURES[picture]
    found = example["picture"].network_input(png(gradient(mode), kind, **options), model(), 10_000)
    assert found.shape == model().image_shape and found.dtype == np.uint8
    grey = np.asarray(gradient(mode).convert("L"))[:, :, None]
    wanted = model().fitted(grey.repeat(model().image_shape[2], 2))
    np.testing.assert_allclose(np.mean(found.astype(float), 2), wanted[:, :, 0], atol=3)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_of_a_turned_camera_is_put_upright(example, orientation):
    """The camera's turn undone by Pillow's own function gives the same picture."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = png(Image.merge("RGB", [gradient("L"), gradient("L").rotate(180), gradient("L")]), "JPEG", exif=exif)
    wanted = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(turned))))
    np.testing.assert_array_equal(
        example["picture"].network_input(turned, colour_model(), 10_000), colour_model().fitted(wanted)
    )


@pytest.mark.filterwarnings("ignore")  # of Pillow
def test_damaged_pictures_are_read_or_refused_in_one_line(example):
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "a camera"
    files = [png(gradient("RGB"), kind, exif=exif) for kind in ("JPEG", "PNG", "WEBP")] + [png(gradient("P"), "GIF")]
    generator, refusals = random.Random(0), []
    for number in range(1500):
        data = bytearray(files[number % len(files)])
        for _ in range(generator.randint(1, 4)):
            place = generator.randrange(min(len(data), generator.choice([60, 150, len(data)])))
            data[place : place + generator.randint(0, 2)] = generator.randbytes(generator.randint(0, 2))
        try:
            assert example["picture"].network_input(bytes(data), some_model(), 10_000).shape == (9, 9, 1)
        except example["picture"].Refused as error:
            refusals.append(str(error))
    assert 500 < len(refusals) < 1500 and not [line for line in refusals if "\n" in line]


def test_damaged_exif_data_are_left_aside(example):
    found = example["picture"].network_input(png(gradient("L"), "JPEG", exif=b"Exif\0\0nonsense"), some_model(), 10_000)
    wanted = example["picture"].network_input(png(gradient("L"), "JPEG"), some_model(), 10_000)
    np.testing.assert_array_equal(found, wanted)


def declared(width: int, height: int) -> bytes:
    """A PNG file that says it is so large, and holds nothing."""
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def sixteen_bits() -> bytes:
    return png(Image.fromarray(np.arange(600, dtype=np.uint16).reshape(20, 30)))


REFUSED = {
    "nothing": (b"", 400, "image: found no bytes"),
    "text": (b"hello", 415, "image: found no picture, allowed JPEG, PNG"),
    "a page": (b"<svg onload='alert(1)'/>", 415, "found no picture"),
    "another format": (png(gradient("L"), "TIFF"), 415, "found no picture"),
    "cut off": (png(gradient("L"))[:60], 400, "image: not a readable image"),
    "empty": (declared(30, 30), 400, "image: not a readable image"),
    "large": (declared(6000, 5000), 413, "image: found 6000x5000 pixels, allowed 24,000,000 in all"),
    "huge": (declared(2**31 - 1, 2**31 - 1), 413, "image: far more pixels than the 24,000,000 allowed"),
    "deep": (sixteen_bits(), 415, "image: found mode I;16, allowed 8 bits per channel"),
    "many bytes": (b"\x89PNG\r\n\x1a\n" + bytes(100_000), 413, "upload: more than the 100,000 bytes allowed"),
}


def one_line(answer, status: int, message: str) -> None:
    assert answer.status_code == status and list(answer.json()) == ["error"], answer.text
    assert message in answer.json()["error"] and "\n" not in answer.json()["error"]
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("how", ["body", "chunks", "form"])
@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_picture_is_refused_in_one_line(client, what, how):
    data, status, message = REFUSED[what]
    sent = {
        "body": {"content": data},
        "chunks": {"content": (data[i : i + 997] for i in range(0, len(data), 997))},  # of no declared length
        "form": {"files": {"file": ("cat.png", data, "image/png")}},
    }[how]
    one_line(client.post("/predict", **sent), status, message)


def test_a_large_picture_is_refused_before_it_is_decoded(example, monkeypatch):
    monkeypatch.setattr(example["picture"], "open_image", None)
    with pytest.raises(example["picture"].Refused, match="found 60x20 pixels, allowed 1,199 in all"):
        example["picture"].network_input(png(gradient("L")), some_model(), 1199)


@pytest.mark.parametrize(("method", "path", "status", "message"), [
    ("GET", "/predict", 405, "Method Not Allowed"),
    ("POST", "/model", 405, "Method Not Allowed"),
    ("GET", "/../../etc/passwd", 404, "Not Found"),
    ("POST", "/predict?top=0", 400, "top: found '0', allowed 1 to 10"),
    ("POST", "/predict?top=11", 400, "allowed 1 to 10"),
    ("POST", "/predict?top=all%0A", 400, "top: found 'all\\n'"),
])  # fmt: skip
def test_other_requests_are_refused_in_one_line(client, method, path, status, message):
    one_line(client.request(method, path), status, message)


@pytest.mark.parametrize(("kind", "body", "message"), [
    ("multipart/form-data; boundary=x", b"--x\r\nContent-Disposition: form-data; name=a\r\n\r\nb\r\n--x--", "no file"),
    ("multipart/form-data", b"x", "Missing boundary"),
    ("multipart/form-data; boundary=x", b"nothing of this kind", ""),
])  # fmt: skip
def test_forms_without_an_image_are_refused_in_one_line(client, kind, body, message):
    one_line(client.post("/predict", content=body, headers={"content-type": kind}), 400, message)


def test_two_files_are_one_too_many(client):
    files = [("a", ("a.png", png(gradient("L")))), ("b", ("b.png", png(gradient("L"))))]
    one_line(client.post("/predict", files=files), 400, "Maximum number of files")


def test_what_the_card_says(client):
    found = client.get("/model").json()
    assert found["name"] == "digits.plq" and found["classes"] == list(some_model().class_names)
    assert found["input"] == {"height": 9, "width": 9, "channels": 1, "fit": "square"}
    assert found["card"]["Images"].startswith("9x9, 1 channel") and found["card"]["Accuracy"] == "not measured"


class Stuck:
    """A model that gives no answer to images, but for black ones, until it is let go."""

    def __init__(self):
        self.at_work, self.let_go = threading.Event(), threading.Event()

    def __getattr__(self, name):
        return getattr(some_model(), name)

    def __call__(self, images):
        if images.any():
            self.at_work.set()
            assert self.let_go.wait(60)
        return np.zeros((len(images), 10), np.float32)


def test_a_full_queue(example):
    """With room for one request, a second one is answered 503, and a third once the first has its answer."""
    stuck, limits, answers = Stuck(), example["app"].Limits(queue=1, timeout=60, batch=1), []
    with TestClient(example["app"].application(stuck, "m", limits)) as client:
        send = lambda: answers.append(client.post("/predict", content=png(gradient("L"))))
        first = threading.Thread(target=send)
        first.start()
        assert stuck.at_work.wait(60)
        send()
        stuck.let_go.set()
        first.join()
        send()
    one_line(answers[0], 503, "busy with 1 requests, as many as allowed")
    assert answers[0].headers["retry-after"] == "1"
    assert [answer.status_code for answer in answers[1:]] == [200, 200]


def test_an_answer_that_does_not_come(example):
    stuck, limits = Stuck(), example["app"].Limits(queue=1, timeout=0.5, batch=1)
    with TestClient(example["app"].application(stuck, "m", limits)) as client:
        one_line(client.post("/predict", content=png(gradient("L"))), 504, "no answer within 0.5 s")
        stuck.let_go.set()
        assert client.post("/predict", content=png(gradient("L"))).status_code == 200  # its place is free again


def test_an_upload_that_does_not_arrive(example):
    limits, sent = example["app"].Limits(timeout=0.05, batch=1), []

    async def receive():
        await asyncio.sleep(60)

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http", "method": "POST", "path": "/predict", "raw_path": b"/predict", "query_string": b"",
        "headers": [], "http_version": "1.1", "scheme": "http", "root_path": "",
    }  # fmt: skip
    app = example["app"].application(some_model(), "m", limits)
    asyncio.run(asyncio.wait_for(app(scope, receive, send), 30))
    assert sent[0]["status"] == 408 and b"the image did not arrive within 0.05 s" in sent[1]["body"]


def test_an_error_of_the_server_tells_nothing(example):
    class Broken(Stuck):
        def __call__(self, images):
            if images.any():
                raise RuntimeError("secret")
            return np.zeros((len(images), 10), np.float32)

    app = example["app"].application(Broken(), "m", example["app"].Limits(batch=1))
    with TestClient(app, raise_server_exceptions=False) as client:
        answer = client.post("/predict", content=png(gradient("L")))
    assert answer.status_code == 500 and "secret" not in answer.text and list(answer.json()) == ["error"]


def test_the_page_asks_for_nothing_elsewhere(client):
    answer = client.get("/")
    assert not re.search(r"""<[^>]*\s(src|href|action)=(?!"data:)|@import|url\(|https?:""", answer.text)
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; ") and "unsafe" not in policy
    assert answer.headers["x-frame-options"] == "DENY" and answer.headers["cache-control"] == "no-store"


# The program.


def program(*arguments: str) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(Path(plq.__file__).parents[1])}
    command = [sys.executable, str(FOLDER / "serve.py"), *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM], ids=lambda stop: stop.name)
def test_it_ends_when_the_last_request_is_answered(tmp_path, stop):
    """A signal in the middle of an upload: the upload is answered, the status is 0, nothing is printed."""
    (tmp_path / "digits.plq").write_bytes(encode(some_model().frozen))
    data = png(some_images()[0])
    server = program(str(tmp_path / "digits.plq"), "--port", "0", "--max-batch", "1")
    try:
        line = server.stdout.readline()
        assert re.fullmatch(r"digits.plq is served at http://127.0.0.1:\d+/\n", line), line + server.stderr.read()
        with socket.create_connection(("127.0.0.1", int(line.split(":")[-1].strip("/\n"))), 60) as connection:
            head = f"POST /predict HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: {len(data)}\r\n\r\n"
            connection.sendall(head.encode())
            assert connection.recv(100).startswith(b"HTTP/1.1 100 ")  # it is being read
            server.send_signal(stop)
            connection.sendall(data)
            answer = b"".join(iter(lambda: connection.recv(65536), b""))
        assert answer.startswith(b"HTTP/1.1 200 OK") and b'"probability"' in answer
        assert server.wait(60) == 0 and server.communicate() == ("", "")
    finally:
        server.kill()


@pytest.mark.parametrize(("arguments", "message"), [
    ([], "required: model"),
    (["{gone}"], "gone.plq: does not exist, allowed a frozen model"),
    (["{bad}"], "bad.plq: is not a frozen model of plq"),
    (["{good}", "--port", "70000"], "--port 70000: allowed 0 to 65535"),
    (["{good}", "--port", "http"], "invalid int value: 'http'"),
    (["{good}", "--max-batch", "0"], "--max-batch 0: allowed 1 to 1024"),
    (["{good}", "--max-upload-mib", "nan"], "--max-upload-mib nan: allowed 0.001 to 1024"),
    (["{good}", "--timeout", "-1"], "--timeout -1.0: allowed 0.1 to 3600"),
    (["{good}", "--host", "256.0.0.1"], "--host 256.0.0.1 --port 8000: cannot listen there"),
    (["{good}", "--port", "{taken}"], "cannot listen there (Address already in use"),
    (["{good}", "--debug"], "unrecognized arguments: --debug"),
])  # fmt: skip
def test_bad_arguments_are_one_line(example, tmp_path, monkeypatch, arguments, message):
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    (tmp_path / "bad.plq").write_text("cat")
    (tmp_path / "good.plq").write_bytes(encode(some_model().frozen))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        names = {name: str(tmp_path / f"{name}.plq") for name in ("gone", "bad", "good")}
        names["taken"] = str(taken.getsockname()[1])
        with pytest.raises(UserError) as caught:
            example["serve"].main([argument.format(**names) for argument in arguments])
    assert message in str(caught.value) and "\n" not in str(caught.value)


# A real browser.


@pytest.fixture
def address(example):
    """Where the application is served, by a server in a thread of this process."""
    application = example["app"].application(some_model(), "digits.plq", example["app"].Limits(batch=1, upload=100_000))
    server = uvicorn.Server(uvicorn.Config(application, log_level="warning", timeout_graceful_shutdown=1))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
        server.should_exit = True
        thread.join()


DROP = """(bytes) => {
    const dropped = new DataTransfer();
    dropped.items.add(new File([new Uint8Array(bytes)], "dropped.png"));
    document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: dropped, bubbles: true, cancelable: true }));
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_in_a_browser(browser, address, scheme):
    """Reached by the keyboard; chosen, dropped and refused pictures; and nothing that the page's policy forbids."""
    page = browser.new_context(color_scheme=scheme).new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text))
    requested: list[str] = []
    page.on("request", lambda request: requested.append(request.url))
    image, other = some_images()[:2]
    page.goto(address)
    page.wait_for_function("document.title === 'digits.plq'")
    assert page.text_content("#about") == "10 classes; sees 9x9 pixels, grey"

    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "file"
    page.set_input_files("#file", {"name": "digit.png", "mimeType": "image/png", "buffer": png(image)})
    require_shown(page, image, "digit.png")
    page.evaluate(DROP, list(png(other)))
    require_shown(page, other, "dropped.png")
    assert page.evaluate("document.getElementById('preview').naturalWidth") == 8

    assert complaints == [] and all(url.startswith((address, "blob:", "data:")) for url in requested)
    page.set_input_files("#file", {"name": "cat.png", "mimeType": "image/png", "buffer": b"cat"})
    page.wait_for_selector("#error:not([hidden])")
    assert page.text_content("#error").startswith("image: found no picture") and page.is_hidden("#result")
    page.set_input_files("#file", {"name": "cat.png", "mimeType": "image/png", "buffer": bytes(100_001)})
    page.wait_for_function("document.getElementById('error').textContent.includes('100001 bytes, allowed 100000')")
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(21, 23, 26)"
    assert dark == (scheme == "dark")


def require_shown(page, image: np.ndarray, caption: str) -> None:
    """The page shows this picture's classes with their probabilities."""
    row = probabilities(image[None])[0]
    best = np.argsort(-row, kind="stable")[:5]
    wanted = [f"{some_model().class_names[index]}{100 * row[index]:.1f} %" for index in best]
    page.wait_for_function("name => document.getElementById('caption').textContent === name", arg=caption)
    page.wait_for_function("() => document.querySelectorAll('#classes:not(.busy) li').length === 5")
    assert page.locator("#classes li").all_text_contents() == wanted
    assert page.is_hidden("#error")
