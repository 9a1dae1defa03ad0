"""The model `hired` of lmms-eval: its own class for the checkpoint, with `hired.enable` inside.

Everything that lmms-eval asks of a model goes to that class (the base). Prompts, processing and decoding are its.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from typing import Any

from lmms_eval.api.model import lmms
from lmms_eval.models.model_utils.gen_metrics import log_metrics
from lmms_eval.utils import simple_parse_args_string

from hired.core.budget import Budget, EncoderBudget, Newlines, check_alpha
from hired.enabling import enable
from hired.errors import BudgetError, HiredError
from hired.harness.bases import accepted, base_of, check_code, class_of, require_lmms_eval
from hired.harness.prompts import check_template
from hired.harness.watching import watched
from hired.loading.checkpoints import load_config
from hired.loading.devices import usable_device
from hired.methods import resolve
from hired.reduction import Counts, reduce
from hired.reduction.checks import Positions
from hired.tiny import WEIGHTS

__all__ = ["HiredChat", "HiredSimple"]


class HiredChat(lmms):  # type: ignore[misc]
    """A checkpoint under a budget, through lmms-eval's class of chats for it, or of plain prompts where that is all.

    Attributes:
        base_class: the module and name of lmms-eval's class.
        is_simple: it is one of plain prompts.
        counts: pictures that the model was asked about so far, their visual tokens, and how many were kept.
        keeps_model: what lmms-eval calls at the end of a run, `clean`, leaves the model where it is.
        asked: called once a `generate`, for progress; with the number of questions before the first.
    """

    is_simple = False

    def __init__(
        self,
        pretrained: str,
        budget: float | None = None,
        base: str | None = None,
        alpha: float = 0.5,
        method: str = "hired",
        variant: str = "paper",
        newlines: Newlines = "drop",
        positions: Positions | None = None,
        encoder_budget: float | None = None,
        device: str | None = None,
        **theirs: Any,
    ) -> None:
        """Checks everything, then has the base load the checkpoint, and enables it.

        Args:
            pretrained: a hub id, a directory, or `tiny`, the model that ships.
            budget, alpha, method, variant, newlines, positions, encoder_budget: as in `hired.enable`.
            base: the class of lmms-eval, as its `--model` names it; None finds it from the checkpoint's configuration.
            device: where to put the model; None is a GPU where there is one, the process's own where there are several.
            **theirs: arguments of the base.

        Raises:
            HiredError: a setting that is missing, out of range or of nobody, a checkpoint that cannot be had or
                supported, a dependency that is missing. See the subclasses in `hired.errors`.
        """
        super().__init__()
        require_lmms_eval()
        if budget is None:
            raise BudgetError("model_args: name a budget, such as budget=0.2; budget=1 is the untouched model")
        self._share = Budget.parse(budget).share
        resolve(method, variant, check_alpha(alpha))
        EncoderBudget.parse(encoder_budget)
        theirs = {key: value for key, value in theirs.items() if value is not None}
        source = str(WEIGHTS) if pretrained == "tiny" else str(pretrained)
        trusts = theirs.get("trust_remote_code") is True
        config = load_config(source, str(pretrained), trusts)
        known = base_of(config.model_type, repr(pretrained)) if base is None else None
        self._name = base if known is None else known.name
        kind = class_of(str(self._name), simple=type(self).is_simple)
        if known is None or known.runs_code:
            if not trusts:
                check_code(source, str(pretrained))
            if "trust_remote_code" not in inspect.signature(kind).parameters:
                theirs.pop("trust_remote_code", None)
        if theirs.pop("max_batch_size", None) is not None:
            raise HiredError("--max_batch_size is not used: name a --batch_size")
        accepted(kind, theirs, str(self._name))
        where = str(usable_device(_own() if device is None else device))
        if "device_map" in inspect.signature(kind).parameters:
            theirs.setdefault("device_map", where)  # transformers 5 takes no empty one, which is the default of some
        self.is_simple = bool(kind.is_simple)
        self.base_class = f"{kind.__module__}.{kind.__qualname__}"
        self._base = kind(pretrained=source, device=where, **theirs)
        if self.is_simple:
            check_template(self._base, config, str(self._name))
        self._model = self._base.model
        self._handle = enable(
            self._model,
            budget,
            alpha=alpha,
            method=method,
            variant=variant,
            newlines=newlines,
            positions=positions,
            encoder_budget=encoder_budget,
        )
        self._untouched = Counts()
        self.keeps_model = False
        self.asked: Callable[[int], None] = lambda questions: None

    @classmethod
    def create_from_arg_string(cls, arg_string: str, additional_config: dict[str, Any] | None = None) -> HiredChat:
        """What lmms-eval's command line makes of `--model_args` and its own options.

        Raises:
            HiredError: an argument that is given in both, and what the class raises.
        """
        ours = simple_parse_args_string(arg_string)
        options = {key: value for key, value in (additional_config or {}).items() if value is not None}
        both = sorted(ours.keys() & options.keys())
        if both:
            raise HiredError(
                f"{', '.join(both)} in model_args and as an option (or its default): use --{both[0]} alone"
            )
        if "pretrained" not in ours:
            raise HiredError("model_args: name a checkpoint, such as pretrained=llava-hf/llava-v1.6-vicuna-7b-hf")
        return cls(**ours, **options)

    @property
    def counts(self) -> Counts:
        """See the class; waits for the device under a budget of 1."""
        return self._handle.counts.plus(self._untouched)

    def generate_until(self, requests: list[Any]) -> list[Any]:
        """The base's answers, in the order of the requests.

        Raises:
            HiredError: `generate` raised; the base may have scored that 0.
        """
        return self._asked("generate_until", requests)

    def generate_until_multi_round(self, requests: list[Any]) -> list[Any]:
        """The same for tasks of several turns, where the base has them."""
        return self._asked("generate_until_multi_round", requests)

    def loglikelihood(self, requests: list[Any]) -> list[Any]:
        """The base's, for the untouched model only.

        Raises:
            HiredError: under any other budget: harnesses index logits by the full prompt, these are of a shorter one.
        """
        if self._share != 1:
            raise HiredError(
                "log-likelihood tasks cannot be run under a budget: choose tasks that generate their answer"
            )
        return self._asked("loglikelihood", requests)

    def clean(self) -> None:
        """Disables and frees the model, unless `keeps_model`."""
        if self.keeps_model:
            return
        self._handle.disable()
        del self._model
        self._base.clean()

    def __getattr__(self, name: str) -> Any:
        """What else lmms-eval asks for (`tokenizer`, `device`, `accelerator` ...) is the base's."""
        if name.startswith("_"):  # such as `_base` while it is being made
            raise AttributeError(name)
        return getattr(self._base, name)

    def _asked(self, method: str, requests: list[Any]) -> list[Any]:
        """What a method of the base answers, watched, with its counts among lmms-eval's results."""
        self._base.task_dict, self._base.cache_hook = self.task_dict, self.cache_hook
        if self._world_size > 1:  # the evaluator tells us, and means the model that answers
            self._base._rank, self._base._world_size = self._rank, self._world_size
        start = self.counts
        self.asked(len(requests))
        with watched(self._model, str(self._name), self._look):
            answers: list[Any] = getattr(self._base, method)(requests)
        if len(answers) != len(requests):
            raise HiredError(f"lmms-eval's {self._name} gave {len(answers)} answers to {len(requests)} questions")
        pictures, full, kept = (now - then for now, then in zip(self.counts, start, strict=True))
        log_metrics(
            total_elapsed_time=0.0,
            total_gen_tokens=0,
            avg_speed=0.0,
            additional_metrics={
                "hired_pictures": pictures,
                "hired_visual_tokens": full / max(pictures, 1),
                "hired_visual_tokens_kept": kept / max(pictures, 1),
            },
        )
        return answers

    def _look(self, call: Any) -> None:
        """Before every `generate`: progress, and the counts that `hired.enable` does not take under a budget of 1."""
        self.asked(0)
        if self._share == 1 and call.get("pixel_values") is not None and call.get("input_ids") is not None:
            self._untouched = self._untouched.plus(reduce(self._model, call, 1).counts)


class HiredSimple(HiredChat):
    """The same through lmms-eval's class of plain prompts, or of chats where it has no other; `--force_simple`."""

    is_simple = True


def _own() -> str:
    """The device of this process, where torchrun or accelerate started several; else the usual choice."""
    return f"cuda:{os.environ['LOCAL_RANK']}" if int(os.environ.get("WORLD_SIZE", "1")) > 1 else "auto"
