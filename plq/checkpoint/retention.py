"""Which checkpoints stay: the newest ones and the best ones."""

import dataclasses
from collections.abc import Sequence
from typing import Any


@dataclasses.dataclass
class Retention:
    """Which checkpoints Orbax leaves in the folder. ``scores``: accuracy by step, where there is one."""

    latest: int
    best: int
    scores: dict[int, float]

    def note(self, step: int, accuracy: float | None) -> None:
        self.scores.pop(step, None)
        if accuracy is not None:
            self.scores[step] = accuracy

    def ranked(self, steps: Sequence[int]) -> list[int]:
        """The steps that have a score, best first, of equals the later first."""
        scored = [step for step in steps if step in self.scores]
        return sorted(scored, key=lambda step: (self.scores[step], step), reverse=True)

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """Orbax's question, for checkpoints of rising steps."""
        steps = [checkpoint.step for checkpoint in checkpoints]
        kept = {*sorted(steps)[-self.latest :], *self.ranked(steps)[: self.best]}
        return [step in kept for step in steps]
