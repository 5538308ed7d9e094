"""StableHLO files that one JAX writes and another reads. Those in tests/stablehlo are of `small_model`, by JAX."""

import re
from pathlib import Path

import jax
import numpy as np
import pytest
from frozen_models import digits, small_model

from plq.exporters.stablehlo import STABLEHLO, serialized

FILES = sorted(Path(__file__).parent.glob("stablehlo/*.stablehlo"))
READS_OF_OLDEST = (1, 16, 0)  # JAX 0.10.0, by jaxlib.mlir.dialects.stablehlo.get_current_version


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_files_of_other_versions_are_read(file):
    model, images = small_model(), digits(5, 9)
    found = jax.export.deserialize(bytearray(file.read_bytes())).call(images)
    np.testing.assert_allclose(found, model(images), rtol=1e-5, atol=1e-5)


def test_what_is_written_the_oldest_jax_reads():
    written = serialized(small_model().runner)
    (version,) = re.findall(rb"StableHLO_v(\d+)\.(\d+)\.(\d+)", written)
    assert tuple(map(int, version)) == tuple(map(int, STABLEHLO.split("."))) <= READS_OF_OLDEST
    assert jax.export.deserialize(bytearray(written)).calling_convention_version == 10
