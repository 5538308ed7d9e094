"""plq: low-precision convolutional networks by progressive learning (EXP-Net, arXiv 1905.11781)."""

__version__ = "0.1.0"
