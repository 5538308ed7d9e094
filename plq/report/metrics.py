"""Metrics as JSON lines: one record per line, the same bytes whenever a run is repeated or resumed."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from plq.errors import UserError
from plq.storage.output import write_text_atomic, writing


class MetricsFile:
    """Appends records to a file; each has its ``step``. Open from the first write on."""

    def __init__(self, path: Path):
        self.path = path
        self._file: Any = None

    def write(self, record: Mapping[str, Any]) -> None:
        """One line, on disk before this returns. float32 values are written so that they read back the same."""
        line = json.dumps({name: _plain(value) for name, value in record.items()}) + "\n"
        with writing(self.path):
            self._file = self._file or self.path.open("a", encoding="utf-8")
            self._file.write(line)
            self._file.flush()

    def rewind(self, step: int) -> None:
        """Take back the records after ``step`` and a last line that was cut off."""
        if not self.path.exists():
            return
        self.close()
        kept = [record for record in read_metrics(self.path) if record["step"] <= step]
        write_text_atomic(self.path, "".join(json.dumps(record) + "\n" for record in kept))

    def close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            with writing(self.path):
                file.close()


def _plain(value: Any) -> Any:
    """JSON has no NaN or infinity; a float32 is written in the fewest digits that give it back."""
    if isinstance(value, (np.ndarray, np.generic)):
        value = float(str(np.float32(value))) if value.dtype == np.float32 else value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All records. A last line that was cut off is left out; UserError for a broken one before it."""
    lines = path.read_text("utf-8").split("\n")
    complete, records = lines[:-1], []
    for number, line in enumerate(complete, 1):
        try:
            record = json.loads(line)
            record["step"]
        except (ValueError, KeyError, TypeError) as error:
            if number == len(complete):
                break
            raise UserError(f"{path} line {number}: not a record with a step ({line[:60]!r})") from error
        records.append(record)
    return records
