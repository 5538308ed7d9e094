"""C compiled with the machine's compiler, as a shared library in a cache folder.

A library is made once for the text of its source, the compiler and the processor. It is written beside its place and
renamed into it, so that processes that make it at once do not disturb each other.
"""

import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

from plq.errors import UserError
from plq.storage.cache_dir import cache_directory

COMPILERS = ("cc", "gcc", "clang")
FLAGS = ("-std=c99", "-O3", "-march=native", "-ffp-contract=off", "-fPIC", "-shared")
HOW = "install one (Debian: apt-get install gcc; macOS: xcode-select --install), or name one in CC"


def compiler() -> str:
    """The path of a C compiler: that of $CC, or the first one there is. Raises UserError if there is none."""
    named = os.environ.get("CC", "")
    for name in [named] if named else COMPILERS:
        found = shutil.which(name)
        if found:
            return found
    what = f"CC={named}: there is no such program" if named else f"found none of {', '.join(COMPILERS)}"
    raise UserError(f"engine native needs a C compiler, {what}; {HOW}")


def processor() -> str:
    """What a compiler's idea of the machine at hand depends on."""
    text = platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{text} {platform.processor()}"
    wanted = ("model name", "flags", "Features", "CPU part")
    return "\n".join([text, *sorted({line for line in lines if line.startswith(wanted)})])


def library(files: dict[str, str], flags: tuple[str, ...] = FLAGS) -> Path:
    """The shared library of these files, by their names; all that end in .c are compiled. Raises UserError."""
    path = compiler()
    version = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout
    key = hashlib.sha256("\0".join([path, version, processor(), *flags, *sum(files.items(), ())]).encode()).hexdigest()
    target = cache_directory() / "native" / f"{key}.so"
    if not target.exists():
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            _compile(path, files, flags, target)
        except OSError as error:
            raise UserError(f"{target.parent}: cannot be written ({error.strerror}); set PLQ_CACHE_DIR") from error
    return target


def _compile(path: str, files: dict[str, str], flags: tuple[str, ...], target: Path) -> None:
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".making-") as folder:
        for name, text in files.items():
            (Path(folder) / name).write_text(text)
        sources = [name for name in files if name.endswith(".c")]
        command = [path, *flags, "-o", "made.so", *sources]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            found = next((line for line in done.stderr.splitlines() if "error" in line), "no message")
            raise UserError(f"{path} failed with status {done.returncode}: {found:.200}")
        os.replace(Path(folder) / "made.so", target)
