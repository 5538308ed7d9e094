"""What a run prints before its first step: the table of layers, and the devices that it runs on."""

from typing import Any

import jax

from plq.report.table import format_table, human_bytes
from plq.train.mesh import bytes_per_device
from plq.trainer.setup import Setup


def print_layers(setup: Setup) -> None:
    """The table at the start: bits, variables, and bytes while training and deployed."""
    header = ["layer", "kind", "W", "A", "output", "parameters", "ancillary", "bytes now", "deployed"]
    rows: list[list[Any]] = [
        [
            layer.name,
            layer.kind,
            layer.weight_bits,
            layer.activation_bits,
            "x".join(map(str, layer.output_shape)),
            layer.parameters,
            layer.ancillary_parameters,
            layer.bytes_now,
            layer.bytes_deployed,
        ]
        for layer in setup.layers
    ]
    sums = [sum(row[column] for row in rows) for column in range(5, 9)]
    print(format_table(header, rows, ["total", "", "", "", "", *sums]))
    now, deployed = (human_bytes(size) for size in sums[2:])
    print(f"variables: {now} in training, {deployed} deployed with packed weights")
    if setup.mesh.size > 1:
        print(devices_line(setup))


def devices_line(setup: Setup) -> str:
    """On what the run goes, and what its state takes there."""
    mesh, processes = setup.mesh, jax.process_count()
    each = human_bytes(bytes_per_device(mesh, setup.abstract_state(0)))
    axes = ", ".join(f"{axis} {size}" for axis, size in mesh.shape.items())
    where = f" of {processes} processes" if processes > 1 else ""
    return f"devices: {mesh.size} x {mesh.devices.flat[0].device_kind}{where} ({axes}), state {each} on each"
