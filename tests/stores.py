"""Object stores on this machine: moto's S3 and an emulator of Google's, which can be told to fail."""

import contextlib
import logging
import os
import socket
import threading
from collections.abc import Iterator
from unittest import mock

import pytest

os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")  # asks Google itself, whatever the emulator
NAMES = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y", "AWS_DEFAULT_REGION": "us-east-1",
         "AWS_EC2_METADATA_DISABLED": "true", "AWS_MAX_ATTEMPTS": "1"}  # fmt: skip


class Store:
    """``fails_every``: each so many requests one is answered with an error of the server; 0 for none."""

    def __init__(self, scheme: str):
        self.scheme, self.fails_every, self.requests, self.failed = scheme, 0, 0, 0

    def fails(self) -> bool:
        self.requests += 1
        failing = bool(self.fails_every) and self.requests % self.fails_every == 0
        self.failed += failing
        return failing

    def address(self, name: str) -> str:
        return f"{self.scheme}://bucket/{name}"


@contextlib.contextmanager
def s3() -> Iterator[Store]:
    """With a bucket named bucket, and the variables that lead to it."""
    moto = pytest.importorskip("moto.server", reason="needs moto[server]")
    pytest.importorskip("s3fs", reason="needs s3fs")
    from werkzeug.serving import make_server

    store = Store("s3")
    inner = moto.DomainDispatcherApplication(moto.create_backend_app)

    def application(environ, start_response):
        if store.fails():
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start_response("503 Service Unavailable", [("Content-Length", "0")])
            return [b""]
        return inner(environ, start_response)

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = make_server("127.0.0.1", 0, application, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with mock.patch.dict(os.environ, {**NAMES, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}"}):
            files("s3").makedirs("bucket", exist_ok=True)
            yield store
    finally:
        server.shutdown()


@contextlib.contextmanager
def gs() -> Iterator[Store]:
    """As `s3`; this one does not fail."""
    emulator = pytest.importorskip("gcp_storage_emulator.server", reason="needs gcp-storage-emulator")
    pytest.importorskip("gcsfs", reason="needs gcsfs")
    logging.getLogger("gcp_storage_emulator").setLevel(logging.CRITICAL)
    server = emulator.create_server("127.0.0.1", free_port(), in_memory=True, default_bucket="bucket")
    server.start()
    try:
        with mock.patch.dict(os.environ, {"STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{server._api._port}"}):
            yield Store("gs")
    finally:
        server.stop()


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def files(scheme: str):
    """fsspec's view of the store."""
    import fsspec

    return fsspec.filesystem(scheme, use_listings_cache=False, skip_instance_cache=True)
