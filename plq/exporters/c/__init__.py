"""A frozen model as self-contained C99: planned and written here, with the kernels of `kernels/`."""
