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
from plq import door
from plq.errors import UserError


def arguments() -> argparse.ArgumentParser:
    parser = door.arguments("plq", "Serve a frozen model: a page to drop pictures on, and a JSON interface.")
    parser.prog, usual = "python examples/serving/serve.py", Limits()
    parser.add_argument("model", type=Path, help="a frozen model (model.plq)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine alone)")
    parser.add_argument("--port", type=int, default=8000, help="0: any that is free (default: 8000)")
    parser.add_argument(
        "--max-batch", type=int, default=usual.batch, help="images per run of the network (default: %(default)g)"
    )
    parser.add_argument(
        "--max-wait-ms", type=float, default=1000 * usual.wait, help="for others to join a batch (default: %(default)g)"
    )
    parser.add_argument(
        "--max-queue",
        type=int,
        default=usual.queue,
        help="requests at a time; more are answered 503 (default: %(default)g)",
    )
    parser.add_argument(
        "--max-upload-mib", type=float, default=usual.upload / 2**20, help="size of an upload (default: %(default)g)"
    )
    parser.add_argument(
        "--max-megapixels", type=float, default=usual.pixels / 1e6, help="size of an image (default: %(default)g)"
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=usual.timeout,
        help="seconds for an upload, and for an answer (default: %(default)g)",
    )
    return parser


def limits(given: argparse.Namespace) -> Limits:
    """Raises UserError for values outside of what makes sense."""
    ranges = {
        "port": (0, 65535), "max_batch": (1, 1024), "max_wait_ms": (0, 1000), "max_queue": (1, 10_000),
        "max_upload_mib": (0.001, 1024), "max_megapixels": (0.001, 85), "timeout": (0.1, 3600),
    }  # fmt: skip
    for name, (low, high) in ranges.items():
        if not low <= getattr(given, name) <= high:
            raise UserError(f"--{name.replace('_', '-')} {getattr(given, name)}: allowed {low} to {high}")
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
    door.run(main)
