"""Serve a frozen model: a page to drop pictures on, and a JSON interface.

    python examples/serving/serve.py model.plq

Only this machine can reach it unless --host says otherwise. Ctrl-C or SIGTERM ends it once requests are answered.
"""

import argparse
import signal
import socket
import sys
import warnings
from pathlib import Path

import uvicorn
from app import Limits, application

import plq
from plq.cli import common
from plq.errors import UserError

USUAL = Limits()
NUMBERS = {  # default, least, largest, help; whole numbers if the default is one
    "port": (8000, 0, 65535, "0: any that is free"),
    "max-batch": (USUAL.batch, 1, 1024, "images per run of the network"),
    "max-wait-ms": (1000 * USUAL.wait, 0, 1000, "for others to join a batch"),
    "max-queue": (USUAL.queue, 1, 10_000, "requests at a time; more are answered 503"),
    "max-upload-mib": (USUAL.upload / 2**20, 0.001, 1024, "size of an upload"),
    "max-megapixels": (USUAL.pixels / 1e6, 0.001, 85, "size of an image"),
    "timeout": (USUAL.timeout, 0.1, 3600, "seconds for an upload, and for an answer"),
}


def arguments() -> argparse.ArgumentParser:
    parser = common.arguments("plq", "Serve a frozen model: a page to drop pictures on, and a JSON interface.")
    parser.prog = "python examples/serving/serve.py"
    parser.add_argument("model", type=Path, help="a frozen model (model.plq)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine alone)")
    for name, (default, _, _, text) in NUMBERS.items():
        parser.add_argument(f"--{name}", type=type(default), default=default, help=f"{text} (default: {default:g})")
    return parser


def limits(given: argparse.Namespace) -> Limits:
    """Raises UserError for values outside of what makes sense."""
    for name, (_, least, largest, _) in NUMBERS.items():
        value = getattr(given, name.replace("-", "_"))
        if not least <= value <= largest:
            raise UserError(f"--{name} {value}: allowed {least} to {largest}")
    return Limits(
        upload=int(given.max_upload_mib * 2**20),
        pixels=int(given.max_megapixels * 1e6),
        queue=given.max_queue,
        timeout=given.timeout,
        batch=given.max_batch,
        wait=given.max_wait_ms / 1000,
    )


def listen(host: str, port: int) -> socket.socket:
    """Raises UserError if nothing can listen there."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise UserError(f"--host {host} --port {port}: cannot listen there ({error.strerror or error})") from error


def main(argv: list[str] | None = None) -> None:
    """The program; see the module's docstring."""
    given = arguments().parse_args(argv)
    allowed = limits(given)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit(0))  # uvicorn puts it off until all is answered
    warnings.filterwarnings("ignore", module="PIL")  # of damaged pictures; too large ones are refused
    model = plq.load(given.model)
    with listen(given.host, given.port) as listening:
        app = application(model, given.model.name, allowed)
        host = f"[{given.host}]" if ":" in given.host else given.host
        print(f"{given.model.name} is served at http://{host}:{listening.getsockname()[1]}/", flush=True)
        config = uvicorn.Config(
            app, log_level="warning", server_header=False, timeout_graceful_shutdown=int(given.timeout) + 1
        )
        uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    common.run(main)
