"""The C export and the native engine: the same bits as in NumPy at every stage, the codes of the frozen model."""

import dataclasses
import os
import shutil
import subprocess
import sys
import threading
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from frozen_models import digits, frozen_model, small_model
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from random_graphs import random_graph
from runs import tiny_config

import plq
from plq.cli.export import main
from plq.config.load import build_config as chosen
from plq.errors import UserError
from plq.exporters.c import build, packing
from plq.exporters.c.engine import NAME, compiled
from plq.exporters.c.folder import files_of
from plq.exporters.c.memory import Buffer, place
from plq.exporters.c.reference import Reference
from plq.exporters.c.source import Source
from plq.exporters.check import Exported, compare
from plq.runtime.executor import plan
from plq.runtime.file_format import Frozen, encode, write
from plq.runtime.frozen import from_frozen
from plq.runtime.graph import Graph
from plq.runtime.grid import Grid

ROOT = Path(__file__).parents[1]
CLASSES = tuple(map(str, range(10)))
STRICT = ("-std=c99", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared")
VECTORS = (*STRICT, "-O2", "-march=native")
PORTABLE = (*STRICT, "-O1", f"-D{NAME}_PORTABLE")
NETS = {
    "svhn dorefa 1/2": ("svhn", 40, 0.125, "dorefa", 1, "clip", 2),
    "svhn syq 2/2": ("svhn", 40, 0.125, "syq", 2, "clip", 2),
    "svhn lsq 4/lsq+ 3": ("svhn", 40, 0.125, "lsq", 4, "lsq_plus", 3),
    "svhn apot 3/3": ("svhn", 40, 0.125, "apot", 3, "apot", 3),
    "resnet20 lsq 2/2": ("resnet20", 32, 0.25, "lsq", 2, "lsq", 2),
    "mobilenet sawb 4/pact 4": ("mobilenet_v1", 32, 0.125, "sawb", 4, "pact", 4),
}
SMALL = {
    "1 bit": {},
    "8 bits": {"weights": Grid(8, -127.5), "inputs": Grid(8), "activation": {"grid": Grid(8), "scale": 1 / 64,
                                                                             "divisor": 1 / 64}},
    "abs": {"activation": {"nonlinearity": "abs"}},
    "half up": {"activation": {"rounding": "half_up"}},
    "residual": {"residual": True},
    "levels": {"activation": {"grid": Grid(2, 0.0, (0, 1, 2, 4))}},
    "offset": {"activation": {"grid": Grid(2, -1.0)}, "weights": Grid(2, -1.5)},
    "rows": {"scale_shape": (3, 1, 1, 1)},
    "hard swish": {"activation": {"nonlinearity": "hard_swish", "grid": Grid(2, -1.0)}},
    "residual of another grid": {"residual": True, "inputs": Grid(2, -1.0)},
    "wide numbers": {"weights": Grid(2, 0.0, (-300, 0, 7, 400))},
}  # fmt: skip


@pytest.fixture(autouse=True)
def cache_folder(tmp_path_factory, monkeypatch):
    """One for all tests of a process."""
    monkeypatch.setenv("PLQ_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "native"))


@cache
def network(name: str):
    return frozen_model(*NETS[name]) if name in NETS else small_model(**SMALL[name])


def require_same_bits(graph: Graph, images: np.ndarray, *ways: tuple[str, ...]) -> None:
    """What every stage stores, compiled in each of these ways, is what NumPy says."""
    wanted = Reference(graph).run(images)
    for flags in ways:
        made = compiled(graph, *flags, hook=True)
        for index, image in enumerate(images):
            for name, found in made.stages(image).items():
                np.testing.assert_array_equal(found, wanted[name][index].reshape(found.shape), f"{name}, {flags}")


@pytest.mark.parametrize("name", [*NETS, *SMALL])
def test_every_stage_has_the_bits_of_numpy_and_the_codes_of_the_frozen_model(name):
    model = network(name)
    graph = model.frozen.graph
    images = digits(3, graph.image_shape[0])
    require_same_bits(graph, images, VECTORS, PORTABLE)
    results, _ = model.results(images)
    wanted = Reference(graph).run(images)
    for stage, codes in results.items():
        if stage != graph.output:
            np.testing.assert_array_equal(wanted[stage].reshape(codes.shape), codes, stage)
    logits = np.asarray(model(images))
    np.testing.assert_allclose(Reference(graph).logits(images), logits, atol=2**-18 * np.abs(logits).max())


def test_all_families_of_kernels_are_met():
    sources = [Source(network(name).frozen.graph, NAME) for name in [*NETS, *SMALL]]
    families = {row.family for source in sources for row in source.rows}
    assert families == {"lut", "dot", "depthwise", "wide", "real"}


@settings(max_examples=8, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 2**32 - 1))
@example(1066)  # pixels are added in a convolution with groups and a mean per channel
@example(25)
def test_random_graphs_have_the_bits_of_numpy(seed):
    graph = random_graph(seed)
    try:
        plan(graph)
    except UserError:  # sums beyond 2**31: refused by the frozen model too
        return
    images = np.random.default_rng(seed).integers(0, 256, (2, *graph.image_shape), np.uint8)
    require_same_bits(graph, images, (*STRICT, "-O1", "-march=native"), (*PORTABLE,))


@pytest.mark.parametrize(("mean", "padding"), [
    (0.0, ((1, 1), (1, 1))), (127.0, ((1, 0), (0, 1))), (12.5, ((0, 0), (0, 0))),
])  # fmt: skip
def test_pixels_times_integers_are_summed_as_integers(mean, padding):
    """A quantized first layer, on pixels with and without a mean."""
    graph = small_model().frozen.graph
    normalize, stem, *rest = graph.nodes
    stem = dataclasses.replace(stem, grid=Grid(8, -128.0), kernel_size=(3, 3), padding=padding)
    kernel = np.random.default_rng(0).integers(0, 256, (3, 3, 1, stem.features)).astype(np.uint8)
    tensors = {**graph.tensors, "stem/kernel": kernel, "stem/scale": np.full((1, 1, 1, 1), 0.004, np.float32)}
    graph = Graph(graph.image_shape, (dataclasses.replace(normalize, mean=(mean,)), stem, *rest), tensors)
    images, reference = digits(4, 9), Reference(graph)
    assert next(iter(reference.ready.values())).coding.family == "dot"
    require_same_bits(graph, images[:2], VECTORS)
    model = from_frozen(Frozen(graph, CLASSES, "square", {}))
    found = Exported(reference.logits, lambda images: reference.run(images))
    assert compare(model, found, images).images == 4


@pytest.fixture
def file(tmp_path):
    """A frozen model of 9x9 digits."""
    config = chosen(tiny_config(data__image_size=9)).to_json()
    path = tmp_path / "model.plq"
    write(path, encode(small_model({"config": config}).frozen))
    return path


@pytest.fixture
def folder(file):
    """What the program writes of it."""
    main(["--format", "c", "--model", str(file), "--out", str(file.parent / "c"), "--name", "tiny"])
    return file.parent / "c"


def test_the_program_writes_a_folder_that_compiles_and_passes_its_test(file, capsys):
    folder = file.parent / "c"
    main(["--format", "c", "--model", str(file), "--out", str(folder), "--name", "tiny"])
    printed = capsys.readouterr().out
    assert "run on 360 images: top-1 equal in 360" in printed and "workspace" in printed and "lut" in printed
    assert sorted(path.name for path in folder.iterdir()) == ["Makefile", "tiny.c", "tiny.h", "tiny_test.c"]
    assert [path.name for path in folder.parent.iterdir() if path.name.startswith(".")] == []
    done = subprocess.run(["make", "test"], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0 and "0 of 40 logits differ" in done.stdout, done.stderr
    test = folder / "tiny_test.c"
    test.write_text(test.read_text().replace("expected[40] ALIGNED = {\n    ", "expected[40] ALIGNED = {\n    1.0f + "))
    done = subprocess.run(["make", "test"], cwd=folder, capture_output=True, text=True)
    assert done.returncode and "1 of 40 logits differ" in done.stdout, done.stderr


def test_the_source_needs_no_library_and_fuses_no_products(folder):
    flags = ["-std=gnu11", "-O3", "-Wall", "-Wextra", "-Werror"]  # where compilers contract, if they are let
    for more, wanted in ((["-march=native"], {"memcpy", "memset"}), (["-Dtiny_FREESTANDING", "-ffreestanding"], set())):
        subprocess.run(["cc", *flags, *more, "-c", "tiny.c", "-o", "tiny.o"], cwd=folder, check=True)
        names = subprocess.run(["nm", "-u", "tiny.o"], cwd=folder, capture_output=True, text=True, check=True).stdout
        assert set(names.replace("U", " ").split()) <= wanted
        writable = subprocess.run(["nm", "tiny.o"], cwd=folder, capture_output=True, text=True, check=True).stdout
        assert not [line for line in writable.splitlines() if line.split()[-2] in "BbD"]
        code = subprocess.check_output(["objdump", "-d", "tiny.o"], cwd=folder, text=True)
        assert "mulps" in code and "vfm" not in code


def test_fast_math_is_refused(folder):
    done = subprocess.run(["cc", "-ffast-math", "-c", "tiny.c"], cwd=folder, capture_output=True, text=True)
    assert done.returncode and "leave out -ffast-math" in done.stderr


def test_no_byte_is_read_or_written_beside_and_nothing_is_undefined(folder):
    for way in ("-march=native", "-Dtiny_PORTABLE"):
        flags = ["-std=c99", "-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", way]
        subprocess.run(["cc", *flags, "tiny.c", "tiny_test.c", "-o", "sane"], cwd=folder, check=True)
        done = subprocess.run(["./sane"], cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_a_batch_with_openmp_gives_the_same(folder):
    program = """#include "tiny.h"
    #include <stdio.h>
    static unsigned char images[5 * tiny_HEIGHT * tiny_WIDTH * tiny_CHANNELS], space[3 * tiny_WORKSPACE_BYTES];
    int main(void) {
        float one[tiny_CLASSES], all[5 * tiny_CLASSES];
        for (unsigned i = 0; i < sizeof images; i++) images[i] = (unsigned char)(i * 7 + i / 11);
        tiny_predict_batch(images, all, 5, space, 3);
        for (int i = 0; i < 5; i++) {
            tiny_predict(images + i * tiny_HEIGHT * tiny_WIDTH * tiny_CHANNELS, one, space);
            for (int c = 0; c < tiny_CLASSES; c++) if (one[c] != all[i * tiny_CLASSES + c]) return 1;
        }
        puts("same");
        return 0;
    }"""
    (folder / "batch.c").write_text(program)
    for flags in (["-fopenmp"], []):
        subprocess.run(["cc", "-O2", *flags, "tiny.c", "batch.c", "-o", "batch"], cwd=folder, check=True)
        assert subprocess.run(["./batch"], cwd=folder, capture_output=True, text=True).stdout == "same\n"


@pytest.mark.parametrize(("more", "message"), [
    (["--name", "1x"], "--name '1x': allowed a letter"),
    (["--name", "x;y"], "--name 'x;y': allowed a letter"),
    (["--name", "int"], "--name 'int': allowed a letter.*no C keyword"),
    (["--with_preprocessing"], "--with_preprocessing: has no effect with --format c"),
    (["--fast"], "--fast: has no effect with --format c"),
    (["--out", "{file}"], "is --model itself"),
    (["--out", "{file}.c"], "is a file, allowed a folder"),
])  # fmt: skip
def test_wrong_arguments_are_one_clear_line(more, message, file):
    Path(f"{file}.c").write_text("mine")
    more = [part.replace("{file}", str(file)) for part in more]
    with pytest.raises(UserError, match=message) as caught:
        main(["--format", "c", "--model", str(file), "--out", str(file.parent / "c"), *more])
    assert "\n" not in str(caught.value) and not (file.parent / "c").exists()


def test_what_somebody_else_wrote_is_left_alone(file):
    (file.parent / "c").mkdir()
    (file.parent / "c" / "Makefile").write_text("mine")
    with pytest.raises(UserError, match="Makefile: is there and was not written by plq"):
        main(["--format", "c", "--model", str(file), "--out", str(file.parent / "c")])
    assert (file.parent / "c" / "Makefile").read_text() == "mine"


def test_a_name_belongs_to_c(file):
    with pytest.raises(UserError, match="--name: has no effect with --format stablehlo"):
        main(["--format", "stablehlo", "--model", str(file), "--out", str(file.parent / "o"), "--name", "x"])


def test_a_wrong_kernel_is_caught_and_nothing_is_left(file, monkeypatch):
    right = packing.lut
    monkeypatch.setattr(packing, "lut", lambda codes, planes: right(1 - codes, planes))
    with pytest.raises(UserError, match="codes of act differ|logits do|top-1 differs"):
        main(["--format", "c", "--model", str(file), "--out", str(file.parent / "c")])
    assert [path.name for path in file.parent.iterdir()] == ["model.plq"]


def test_the_native_engine_gives_the_logits_of_the_other_one(file):
    model, native = plq.load(file), plq.load(file, engine="native", threads=3)
    images = digits(7, 11)  # fitted to 9x9
    found = native(images)
    np.testing.assert_allclose(found, model(images), atol=1e-5)
    assert (native.class_names, native.image_shape) == (model.class_names, model.image_shape)
    np.testing.assert_array_equal(plq.load(file, engine="native", threads=1)(images), found)
    results = {}
    callers = [threading.Thread(target=lambda n=n: results.update({n: native(images[n:])})) for n in range(6)]
    [caller.start() for caller in callers]
    [caller.join() for caller in callers]
    for start, logits in results.items():
        np.testing.assert_array_equal(logits, found[start:])
    assert native(np.zeros((0, 9, 9, 1), np.uint8)).shape == (0, 10)


def test_a_library_is_compiled_once_and_never_by_halves(file, tmp_path, monkeypatch):
    monkeypatch.setenv("PLQ_CACHE_DIR", str(tmp_path / "cache"))
    program = "import sys, plq; print(plq.load(sys.argv[1], engine='native').compiled.path)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", program, str(file)]
    runs = [subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) for _ in range(2)]
    outputs = {run.communicate()[0] for run in runs}
    assert len(outputs) == 1 and all(run.returncode == 0 for run in runs)
    assert [path.suffix for path in (tmp_path / "cache" / "native").iterdir()] == [".so"]
    monkeypatch.setattr(build, "_compile", None)
    plq.load(file, engine="native")


@pytest.mark.parametrize(("compiler", "message"), [
    ("", "engine native needs a C compiler, found none of cc, gcc, clang; install one"),
    ("no-such-cc", "engine native needs a C compiler, CC=no-such-cc: there is no such program; install one"),
    ("false", "false failed with status 1"),
])  # fmt: skip
def test_without_a_compiler_one_line_says_what_to_do(compiler, message, file, tmp_path, monkeypatch):
    monkeypatch.setenv("CC", compiler)
    if not compiler:
        monkeypatch.setattr(build.shutil, "which", lambda name: None)
    with pytest.raises(UserError, match=message) as caught:
        plq.load(file, engine="native")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("options", "message"), [
    ({"engine": "naive"}, "engine='naive': unknown.*native"),
    ({"engine": "native", "threads": -1}, "threads -1: allowed 1 to"),
    ({"threads": 2}, "threads=2: has no effect with engine='jax'"),
])  # fmt: skip
def test_wrong_options_of_load_are_one_clear_line(options, message, file):
    with pytest.raises(UserError, match=message):
        plq.load(file, **options)


def test_buffers_share_their_bytes_only_if_never_alive_at_once():
    buffers = [Buffer("a", 100, 0, 1), Buffer("b", 200, 1, 2), Buffer("c", 90, 2, 3), Buffer("d", 1, 0, 3)]
    offsets, total = place(buffers)
    for one in buffers:
        for other in buffers:
            apart = offsets[one.name] + one.bytes <= offsets[other.name] or (
                offsets[other.name] + other.bytes <= offsets[one.name]
            )
            assert one is other or apart or one.last < other.first or other.last < one.first
    assert total == 448 and all(offset % 64 == 0 for offset in offsets.values())


@pytest.mark.parametrize(("compiler", "runner", "flags"), [
    ("aarch64-linux-gnu-gcc", "qemu-aarch64", []),
    ("aarch64-linux-gnu-gcc", "qemu-aarch64", ["-march=armv8.2-a+dotprod+i8mm"]),
    ("clang", "", ["-march=native"]),
    ("cc", "", ["-O0", "-mavx2"]),
])  # fmt: skip
def test_other_compilers_and_processors_give_the_same_bits(compiler, runner, flags, tmp_path):
    missing = [name for name in (compiler, runner) if name and not shutil.which(name)]
    if missing:
        pytest.skip(f"{' and '.join(missing)} not installed")
    for name in ("resnet20 lsq 2/2", "mobilenet sawb 4/pact 4", "rows"):
        graph = network(name).frozen.graph
        files, _ = files_of(graph, "net", digits(1, graph.image_shape[0]))
        for file, text in files.items():
            (tmp_path / file).write_text(text)
        command = [compiler, "-std=c99", "-O2", "-Wall", "-Wextra", "-Werror", *flags, "-static", "net.c", "net_test.c"]
        subprocess.run([*command, "-o", "net"], cwd=tmp_path, check=True)
        done = subprocess.run([*filter(None, [runner]), "./net"], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0 and "0 of 10 logits differ" in done.stdout, done.stdout


def test_the_example_runs_on_a_microcontroller(file, tmp_path):
    missing = [name for name in ("arm-none-eabi-gcc", "qemu-system-arm", "make") if not shutil.which(name)]
    if missing:
        pytest.skip(f"{' and '.join(missing)} not installed")
    where = ROOT / "examples" / "microcontroller"
    command = ["make", "-C", str(where), f"MODEL={file}", f"OUT={tmp_path / 'build'}", f"PYTHON={sys.executable}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "0 of 40 logits differ" in done.stdout, done.stdout + done.stderr
    counts = [int(line.split()[0]) for line in done.stdout.splitlines() if line.endswith(" instructions")]
    assert len(counts) == 4 and all(10_000 < count < 5_000_000 for count in counts)
