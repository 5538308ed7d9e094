"""``python -m plq.main --config configs/X.py``: the same program as ``plq train``."""

from plq.cli.common import run
from plq.cli.train import main

if __name__ == "__main__":
    run(main)
