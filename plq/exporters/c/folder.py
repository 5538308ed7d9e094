"""The files of a C export beside NAME.c: a test with images and expected logits, and a Makefile."""

import re

import numpy as np

from plq.checks import shown
from plq.errors import UserError
from plq.exporters.c.reference import Reference
from plq.exporters.c.source import Source
from plq.exporters.c.templates import header
from plq.exporters.c.text import array
from plq.runtime.graph import Graph

IDENTIFIER = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,62}")
# fmt: off
KEYWORDS = frozenset((
    "auto", "break", "case", "char", "const", "continue", "default", "do", "double", "else", "enum", "extern", "float",
    "for", "goto", "if", "inline", "int", "long", "main", "register", "restrict", "return", "short", "signed", "sizeof",
    "static", "struct", "switch", "typedef", "union", "unsigned", "void", "volatile", "while",
))
# fmt: on
TESTED = 4  # images


def check_name(name: str) -> None:
    """Raise UserError unless names in C can begin with it."""
    if not isinstance(name, str) or not IDENTIFIER.fullmatch(name) or name in KEYWORDS:
        raise UserError(f"--name {shown(name)}: allowed a letter, then letters, digits and _, 63 at most; no C keyword")


def files_of(graph: Graph, name: str, images: np.ndarray | None) -> tuple[dict[str, str], Source]:
    """The text of each file by its name, and the source. ``images``: of which the first are in the test, or None.

    Raises UserError for a name that C does not take.
    """
    check_name(name)
    source = Source(graph, name)
    if images is None:
        images = np.random.default_rng(0).integers(0, 256, (TESTED, *graph.image_shape), np.uint8)
    files = {
        f"{name}.h": header(graph, name, source.workspace),
        f"{name}.c": source.text,
        f"{name}_test.c": test_of(graph, name, images[:TESTED]),
        "Makefile": MAKEFILE.replace("NAME", name),
    }
    return files, source


def test_of(graph: Graph, name: str, images: np.ndarray) -> str:
    """The text of NAME_test.c. Raises UserError if an expected logit is no number."""
    logits = Reference(graph).logits(images)
    if not np.isfinite(logits).all():
        raise UserError("the model gives logits that are not finite")
    arrays = "\n\n".join([array("images", images.reshape(-1)), array("expected", logits.reshape(-1))])
    return TEST.replace("ARRAYS", arrays).replace("COUNT", str(len(images))).replace("NAME", name)


TEST = """/* Written by plq. Prints the class of each image; the status is 0 if all logits have the expected bits. */
#include "NAME.h"

#include <stdio.h>

#if defined(__GNUC__)
#define ALIGNED __attribute__((aligned(4)))
#else
#define ALIGNED
#endif

ARRAYS

static unsigned char workspace[NAME_WORKSPACE_BYTES];

int main(void)
{
    int wrong = 0;
    for (int i = 0; i < COUNT; i++) {
        static float logits[NAME_LOGITS];
        int best = 0;
        NAME_predict(images + (size_t)i * (NAME_HEIGHT * NAME_WIDTH * NAME_CHANNELS), logits, workspace);
        for (int c = 0; c < NAME_LOGITS; c++) {
            best = c < NAME_CLASSES && logits[c] > logits[best] ? c : best;
            wrong += !(logits[c] == expected[i * NAME_LOGITS + c]);
        }
        printf("image %d: class %d\\n", i, best);
    }
    printf("%d of %d logits differ\\n", wrong, COUNT * NAME_LOGITS);
    return wrong != 0;
}
"""

MAKEFILE = """# Written by plq. `make test`; for other machines set CC and CFLAGS.
CFLAGS = -O3 -march=native
STRICT = -std=c99 -ffp-contract=off -Wall -Wextra -Werror

NAME_test: NAME_test.c NAME.c NAME.h
\t$(CC) $(STRICT) $(CFLAGS) -o $@ NAME_test.c NAME.c

NAME.o: NAME.c NAME.h
\t$(CC) $(STRICT) $(CFLAGS) -c -o $@ NAME.c

test: NAME_test
\t./NAME_test

clean:
\trm -f NAME_test NAME.o

.PHONY: test clean
"""
