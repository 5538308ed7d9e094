"""What is the same in every export, but for names and sizes."""

import math

from plq.runtime.graph import Graph
from plq.runtime.heads import offsets


def header(graph: Graph, name: str, workspace: int) -> str:
    """The text of NAME.h."""
    height, width, channels = graph.image_shape
    shape = graph.output_shape
    sizes = {
        "HEIGHT": height, "WIDTH": width, "CHANNELS": channels, "CLASSES": shape[-1], "LOGITS": math.prod(shape),
        "WORKSPACE_BYTES": workspace,
    }  # fmt: skip
    defines = "\n".join(f"#define {name}_{field} {value}" for field, value in sizes.items())
    starts = zip(graph.heads, offsets(graph.heads), strict=True)
    at = [f"{name}_OUTPUT_{place}_AT {start} /* {head.size} numbers */" for place, (head, start) in enumerate(starts)]
    defines = "\n#define ".join([defines, *at])
    return HEADER.replace("DEFINES", defines).replace("NAME", name)


HEADER = """/* Written by plq. */
#ifndef NAME_H
#define NAME_H

#include <stddef.h>
#include <stdint.h>

DEFINES

#ifdef __cplusplus
extern "C" {
#endif

/* Logits of one image, [height][width][channels], red first: NAME_LOGITS numbers, the classes fastest. Works in
   `workspace`, NAME_WORKSPACE_BYTES of any alignment, and keeps nothing there. */
void NAME_predict(const uint8_t *images, float *logits, void *workspace);

/* The same for `count` images one after the other. With OpenMP `threads` of them at once; the workspace is then as many
   times as large. */
void NAME_predict_batch(const uint8_t *images, float *logits, size_t count, void *workspace, int threads);

#ifdef __cplusplus
}
#endif

#endif
"""

SWITCHES = """/* -DNAME_FREESTANDING: nothing of the C library. -DNAME_PORTABLE: no vector instructions.
   -DNAME_PROFILE: NAME_done, which is yours, is called behind each stage, with its number and its result. */
#ifdef NAME_FREESTANDING
#define PLQ_FREESTANDING
#endif
#ifdef NAME_PORTABLE
#define PLQ_PORTABLE
#endif
#ifdef NAME_PROFILE
void NAME_done(int stage, const void *result);
#define DONE(stage, result) NAME_done(stage, result)
#else
#define DONE(stage, result) (void)0
#endif"""

PREDICT = """void NAME_predict(const uint8_t *images, float *logits, void *workspace)
{
    unsigned char *w = (unsigned char *)workspace;
    w += (64 - (uintptr_t)w % 64) % 64;
BODY
}"""

BATCH = """#ifdef _OPENMP
#include <omp.h>
#endif

void NAME_predict_batch(const uint8_t *images, float *logits, size_t count, void *workspace, int threads)
{
#ifdef _OPENMP
#pragma omp parallel for num_threads(threads) schedule(static)
#else
    (void)threads;
#endif
    for (ptrdiff_t i = 0; i < (ptrdiff_t)count; i++) {
        unsigned char *own = (unsigned char *)workspace;
#ifdef _OPENMP
        own += (size_t)omp_get_thread_num() * NAME_WORKSPACE_BYTES;
#endif
        NAME_predict(images + (size_t)i * (NAME_HEIGHT * NAME_WIDTH * NAME_CHANNELS), logits + i * NAME_LOGITS, own);
    }
}
"""
