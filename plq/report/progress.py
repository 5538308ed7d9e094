"""The live line: where a run is, how fast it goes, and when it will be done."""

import shutil
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import TextIO

from plq.storage.address import named

WINDOW = 20  # updates over which the speed is taken
PLAIN_SECONDS = 10.0  # at least this long between lines where the line cannot be rewritten


class Progress:
    """One line that rewrites itself on a terminal; elsewhere a plain line now and then."""

    def __init__(
        self,
        total_steps: int,
        steps_per_epoch: int,
        batch_size: int,
        start_step: int = 0,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.total_steps, self.steps_per_epoch, self.batch_size = total_steps, steps_per_epoch, batch_size
        self.stream, self.clock = stream or sys.stderr, clock
        self.live = self.stream.isatty()
        self.seen: deque[tuple[int, float]] = deque([(start_step, clock())], maxlen=WINDOW)
        self.printed_at = float("-inf")
        self.shown = ""

    def update(self, step: int, metrics: Mapping[str, float]) -> None:
        """Show the step reached and its loss, accuracy (0 to 1), lr and factor."""
        now = self.clock()
        self.seen.append((step, now))
        line = self._line(step, metrics)
        if self.live:
            self._rewrite(line)
        elif now - self.printed_at >= PLAIN_SECONDS or step == self.total_steps:
            self.printed_at = now
            print(line, file=self.stream, flush=True)

    def note(self, text: str) -> None:
        """A full line that stays, above the live one."""
        line = self.shown
        self._rewrite("")
        print(named(text), file=self.stream, flush=True)
        self._rewrite(line)

    def close(self) -> None:
        """Leave the last line standing."""
        if self.shown:
            print(file=self.stream, flush=True)
        self.shown = ""

    def _rewrite(self, line: str) -> None:
        if not self.live:
            return
        width = shutil.get_terminal_size().columns - 1
        line = (line if len(line) <= width else line.replace("  ", " "))[:width]
        print(f"\r\x1b[K{line}", end="", file=self.stream, flush=True)
        self.shown = line

    def _line(self, step: int, metrics: Mapping[str, float]) -> str:
        epoch = min(-(-step // self.steps_per_epoch), self._epochs())
        rate = self._steps_per_second()
        left = _clock_text((self.total_steps - step) / rate) if rate else "--:--"
        return "  ".join(
            [
                f"epoch {epoch}/{self._epochs()}",
                f"step {step:,}/{self.total_steps:,}",
                f"ETA {left}",
                f"{rate * self.batch_size:,.0f} images/s",
                f"loss {metrics['loss']:.4f}",
                f"acc {100 * metrics['accuracy']:.2f}%",
                f"lr {metrics['lr']:.1e}",
                f"f {metrics['factor']:.3f}",
            ]
        )

    def _epochs(self) -> int:
        return -(-self.total_steps // self.steps_per_epoch)

    def _steps_per_second(self) -> float:
        start = min(1, len(self.seen) - 2) if len(self.seen) > 1 else 0  # past the first one, which compiled
        (first_step, first_time), (last_step, last_time) = self.seen[start], self.seen[-1]
        return (last_step - first_step) / (last_time - first_time) if last_time > first_time else 0.0


def _clock_text(seconds: float) -> str:
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute:02}:{second:02}"
