"""Two CPU devices for every test; what one test compiles, the others and their programs find."""

import os
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=2")
os.environ.setdefault("PJRT_NPROC", "16")  # several collective programs in flight on few cores
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".pytest_cache" / "xla"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
os.environ["PLQ_CACHE_DIR"] = str(Path(__file__).parents[1] / ".pytest_cache" / "images")

import jax

jax.config.update("jax_numpy_dtype_promotion", "standard")
