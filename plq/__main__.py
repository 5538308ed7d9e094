"""``python -m plq COMMAND``: the command ``plq``."""

from plq.cli.program import console

if __name__ == "__main__":
    console()
