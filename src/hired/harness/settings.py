"""What `hired reproduce` is run with. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from hired.errors import BudgetError, HiredError
from hired.harness.paper import BENCHMARKS, MODEL

__all__ = ["PROMPTS", "Settings"]

PROMPTS = ("paper", "chat")
"""Which of lmms-eval's classes asks: that of plain prompts, as in the paper, or that of chats."""


@dataclass(frozen=True)
class Settings:
    """What to measure.

    Attributes:
        model: `tiny`, a directory, or a hub id.
        budgets: shares, or tokens a picture; 1 is the untouched model.
        tasks: lmms-eval's names.
        limit: documents of every task; None for all.
        method, alpha, newlines: as in `hired.reduce`.
        prompts: one of `PROMPTS`. Where lmms-eval has one class only, it is that.
        base: lmms-eval's class, where it is not to be found from the checkpoint.
        device: `auto`, or what torch takes.
        dtype: `auto`, or a name; only for classes that take one.
        include: a folder with definitions of other tasks, as `--include_path` of lmms-eval.
        trust_remote_code: run code that comes with the checkpoint.
    """

    model: str = MODEL
    budgets: tuple[int | float | str, ...] = (1, 0.4, 0.2)
    tasks: tuple[str, ...] = tuple(BENCHMARKS)
    limit: int | None = None
    method: str = "hired"
    alpha: float = 0.5
    newlines: str = "drop"
    prompts: str = "paper"
    base: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    include: str | None = None
    trust_remote_code: bool = False

    def check(self) -> tuple[float, ...]:
        """The budgets, numbers for sure, each once.

        Raises:
            BudgetError: a setting that is unknown or out of range.
            HiredError: no task, or one twice.
        """
        from hired.core.budget import Budget, check_alpha
        from hired.methods import resolve

        for name, known in (("newlines", ("drop", "keep")), ("prompts", PROMPTS)):
            if getattr(self, name) not in known:
                raise BudgetError(f"{name}={getattr(self, name)!r}: use one of {', '.join(known)}")
        if not self.budgets:
            raise BudgetError("name at least one budget, such as 1,0.4,0.2")
        for budget in self.budgets:
            Budget.parse(budget)
        resolve(self.method, "paper", check_alpha(self.alpha))
        if self.limit is not None and self.limit < 1:
            raise BudgetError("limit must be at least 1")
        if not self.tasks or len(set(self.tasks)) < len(self.tasks):
            raise HiredError("name at least one task, and none twice")
        return tuple(dict.fromkeys(budget for budget in self.budgets if not isinstance(budget, str)))

    def fixed(self) -> dict[str, Any]:
        """What all results of one folder share: everything but the tasks, the budgets and the device."""
        free = ("tasks", "budgets", "device")
        return {name: value for name, value in asdict(self).items() if name not in free}
