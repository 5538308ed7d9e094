"""The predictor as a web application: a page, and an interface of JSON.

| request       | answer |
|---------------|--------|
| GET /         | the page |
| POST /predict | the body is an image, or multipart/form-data with one file: classes and probabilities; ?top=3 |
| GET /model    | what the model's card says |
| GET /health   | counts of batches and images |

Every error is {"error": one line} under the fitting status.
"""

import asyncio
import base64
import contextlib
import dataclasses
import functools
import hashlib
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import jax
import numpy as np
from anyio.to_thread import run_sync
from batcher import Batcher
from picture import Refused, network_input
from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from plq.report.model_card import images, measured, origin
from plq.runtime.frozen import FrozenModel

PAGE = Path(__file__).with_name("page.html")
DECODERS = 2  # pictures that are decoded at the same time
TOP = 5  # classes in an answer that does not say how many


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a request may take; see serve.py --help."""

    upload: int = 8 * 2**20  # bytes
    pixels: int = 24_000_000
    queue: int = 64  # requests at a time
    timeout: float = 10.0  # seconds
    batch: int = 16
    wait: float = 0.004  # seconds


class Predictor:
    """A model, ready to answer."""

    def __init__(self, model: FrozenModel, name: str, limits: Limits):
        self.model, self.name, self.limits = model, name, limits
        run = lambda images: np.asarray(jax.nn.softmax(model(images)))
        self.batcher = Batcher(run, model.image_shape, limits.batch, limits.wait)
        self.batcher.warm_up()
        self.at_work = 0
        self._decoders = anyio.CapacityLimiter(DECODERS)

    async def predict(self, request: Request) -> Response:
        """Raises Refused, in one line, for whatever is not answered."""
        top = self._top(request)
        if self.at_work >= self.limits.queue:
            raise Refused(503, f"busy with {self.at_work} requests, as many as allowed; try again")
        self.at_work += 1
        try:
            data = await self._in_time(uploaded(request, self.limits.upload), 408, "the image did not arrive")
            probabilities = await self._in_time(self._probabilities(data), 504, "no answer")
        finally:
            self.at_work -= 1
        order = np.argsort(-probabilities, kind="stable")[:top]
        return JSONResponse({"classes": [self._class(int(index), probabilities) for index in order]})

    async def facts(self, request: Request) -> Response:
        """The card, and what a program needs to know."""
        height, width, channels = self.model.image_shape
        training = self.model.training
        return JSONResponse({
            "name": self.name,
            "input": {"height": height, "width": width, "channels": channels, "fit": self.model.frozen.fit},
            "classes": list(self.model.class_names),
            "card": {"Images": images(self.model.frozen), **origin(training), **measured(training)},
            "limits": dataclasses.asdict(self.limits),
        })  # fmt: skip

    async def health(self, request: Request) -> Response:
        """That it is there, and how many images shared how many runs of the network."""
        counts = {"batches": self.batcher.batches, "images": self.batcher.images, "at_work": self.at_work}
        return JSONResponse({"status": "ok", **counts})

    async def _probabilities(self, data: bytes) -> np.ndarray:
        decode = functools.partial(network_input, data, self.model, self.limits.pixels)
        return await self.batcher(await run_sync(decode, limiter=self._decoders, abandon_on_cancel=True))

    async def _in_time(self, work: Any, status: int, message: str) -> Any:
        try:
            async with asyncio.timeout(self.limits.timeout):
                return await work
        except TimeoutError as error:
            raise Refused(status, f"{message} within {self.limits.timeout:g} s") from error

    def _top(self, request: Request) -> int:
        classes = len(self.model.class_names)
        given = request.query_params.get("top", str(min(TOP, classes)))
        if not re.fullmatch("[0-9]{1,6}", given) or not 1 <= int(given) <= classes:
            raise Refused(400, f"top: found {given[:20]!r}, allowed 1 to {classes}")
        return int(given)

    def _class(self, index: int, probabilities: np.ndarray) -> dict[str, Any]:
        return {"index": index, "name": self.model.class_names[index], "probability": float(probabilities[index])}


async def uploaded(request: Request, limit: int) -> bytes:
    """The image in a request's body. Raises Refused if there is none, or it has more bytes than ``limit``."""
    request = Request(request.scope, limited(request, limit))
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        return await request.body()
    async with request.form(max_files=1, max_fields=8) as form:
        files = [value for value in form.values() if isinstance(value, UploadFile)]
        if not files:
            raise Refused(400, "multipart/form-data: found no file")
        return await files[0].read()


def limited(request: Request, limit: int) -> Receive:
    """What a request receives, as long as it is not too much."""
    too_large = Refused(413, f"upload: more than the {limit:,} bytes allowed")
    declared, received = request.headers.get("content-length", ""), 0
    if declared.isdecimal() and int(declared) > limit:
        raise too_large

    async def receive() -> Message:
        nonlocal received
        message = await request.receive()
        received += len(message.get("body", b""))
        if received > limit:
            raise too_large
        return message

    return receive


def page() -> tuple[str, str]:
    """The page and its content security policy: its own style and script, by their hashes, and nothing else."""
    text = PAGE.read_text("utf-8")
    hashes = {
        tag: base64.b64encode(hashlib.sha256(re.findall(f"<{tag}>(.*?)</{tag}>", text, re.S)[0].encode()).digest())
        for tag in ("style", "script")
    }
    policy = "; ".join((
        "default-src 'none'", "img-src blob: data:", "connect-src 'self'", "base-uri 'none'", "form-action 'none'",
        "frame-ancestors 'none'", *(f"{tag}-src 'sha256-{hashed.decode()}'" for tag, hashed in hashes.items()),
    ))  # fmt: skip
    return text, policy


HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


def with_headers(app: ASGIApp) -> ASGIApp:
    """The application with `HEADERS` in all its answers."""
    added = [(name.encode(), value.encode()) for name, value in HEADERS.items()]

    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_more(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *added]
            await send(message)

        await app(scope, receive, send_more)

    return wrapped


async def refused(request: Request, error: Exception) -> Response:
    """The answer to an error: one line."""
    if isinstance(error, Refused):
        retry = {"retry-after": "1"} if error.status == 503 else {}
        return JSONResponse({"error": str(error)}, error.status, retry)
    if isinstance(error, HTTPException):
        return JSONResponse({"error": " ".join(error.detail.split())}, error.status_code, error.headers)
    if isinstance(error, ClientDisconnect):
        return JSONResponse({"error": "the sender has gone"}, 400)
    return JSONResponse({"error": "something went wrong here; the server's log says what"}, 500)


def application(model: FrozenModel, name: str, limits: Limits) -> Starlette:
    """The whole. The network is compiled when it is made, not when the first request comes."""
    predictor, (text, policy) = Predictor(model, name, limits), page()

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with predictor.batcher:
            yield

    async def show(_: Request) -> Response:
        return HTMLResponse(text, headers={"content-security-policy": policy})

    routes = [
        Route("/", show),
        Route("/predict", predictor.predict, methods=["POST"]),
        Route("/model", predictor.facts),
        Route("/health", predictor.health),
    ]
    errors = dict.fromkeys((Refused, HTTPException, ClientDisconnect, Exception), refused)
    return Starlette(routes=routes, lifespan=lifespan, middleware=[Middleware(with_headers)], exception_handlers=errors)
