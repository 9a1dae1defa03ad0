"""A question and its pictures as a model's inputs, by the checkpoint's own processor and chat template.

Templates and processors come with checkpoints and raise almost anything; here it is an `InputsError` of one line.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

from hired.errors import InputsError

__all__ = ["follow_up", "inputs", "prompt"]

_PLAIN = "USER: {question} ASSISTANT:"
_ANSWER = "HIREDHOLDSTHEANSWERHERE"  # what stands for an answer while a template is looked at
_ADVICE = "mend the template (chat_template.jinja in the model's directory)"


def prompt(processor: Any, question: str, pictures: int = 1, system: str | None = None) -> str:
    """The text of pictures and one question, by the chat template where the processor has one.

    Args:
        processor: The model's.
        question: What is asked.
        pictures: How many stand in front of it.
        system: A system message, None for the template's own.

    Raises:
        InputsError: The template is broken or leaves a picture, the question or the system message out, or one of the
            texts holds the picture's placeholder.
    """
    for what, text in (("question", question), ("system message", system or "")):
        for token in _placeholders(processor):
            if token in text:
                raise InputsError(f"the {what} holds {token!r}, which stands for a picture: leave it out")
    if not getattr(processor, "chat_template", None):
        image = next(iter(_placeholders(processor)), "<image>")
        words = _PLAIN.format(question=f"{image}\n" * pictures + question)
        return words if system is None else f"{system} {words}"
    asked = _asked(question, pictures)
    words = _rendered(processor, [*_told(system), asked])
    known = _placeholders(processor)
    if known and not any(words.count(token) >= pictures for token in known):
        left = "the picture" if pictures == 1 else f"some of the {pictures} pictures"
        raise InputsError(f"the chat template leaves {left} out (no {known[0]!r} in the prompt): {_ADVICE}")
    if system is not None and system.strip() not in words:
        raise InputsError("the model's chat template takes no system message: leave it out")
    with contextlib.suppress(InputsError):  # a template may want a text
        if question and words == _rendered(processor, [*_told(system), _asked("", pictures)]):
            words = ""
    if not words:
        raise InputsError(f"the chat template leaves the question out: {_ADVICE}")
    return words


def follow_up(processor: Any, question: str) -> str:
    """What stands between an answer and the next one: the end of its turn, and a turn that asks, without pictures.

    Raises:
        InputsError: The template is broken or knows no second turn, or the question holds the picture's placeholder.
    """
    for token in _placeholders(processor):
        if token in question:
            raise InputsError(f"the question holds {token!r}, which stands for a picture: leave it out")
    if not getattr(processor, "chat_template", None):
        return str(processor.tokenizer.eos_token or "\n") + _PLAIN.format(question=question)
    first, again = _asked("?", 1), _asked(question, 0)
    for content in ([{"type": "text", "text": _ANSWER}], _ANSWER):  # templates take the one, the other or both
        with contextlib.suppress(InputsError):
            words = _rendered(processor, [first, {"role": "assistant", "content": content}, again])
            _, found, tail = words.partition(_ANSWER)
            if found and _ANSWER not in tail and question.strip() in tail:
                return tail
    raise InputsError("the model's chat template takes no follow-up question: ask one question at a time")


def inputs(model: Any, processor: Any, words: Sequence[str], images: Sequence[Any], **options: Any) -> Any:
    """What the processor makes of prompts with pictures, on the model's device.

    Args:
        model: The model that they are for.
        processor: Its processor.
        words: The prompts.
        images: The pictures, in the order of their placeholders in all prompts.
        options: Passed on to the processor.

    Raises:
        InputsError: The processor cannot take them, or makes tokens that the model does not have.
    """
    try:
        made = processor(text=list(words), images=list(images), return_tensors="pt", **options).to(model.device)
        top = int(made["input_ids"].max())
        # The embeddings of a model without its LLM are of one token; its configuration is the whole checkpoint's.
        known = max(int(model.get_input_embeddings().num_embeddings), int(model.config.get_text_config().vocab_size))
    except MemoryError:
        raise
    except Exception as error:  # it depends on the processor
        sizes = ", ".join(f"{image.width} x {image.height}" for image in images[:3])
        raise InputsError(
            f"the model's processor cannot take this prompt and picture ({sizes} pixels): {_line(error)}"
        ) from error
    if top >= known:
        raise InputsError(
            f"the processor makes token {top:,} and the model has {known:,}: the two are not of one checkpoint"
        )
    return made


def _asked(question: str, pictures: int) -> dict[str, Any]:
    """A message with pictures and a question."""
    return {"role": "user", "content": [{"type": "image"}] * pictures + [{"type": "text", "text": question}]}


def _told(system: str | None) -> list[dict[str, Any]]:
    """The system message, if any."""
    return [] if system is None else [{"role": "system", "content": [{"type": "text", "text": system}]}]


def _rendered(processor: Any, messages: list[dict[str, Any]]) -> str:
    """What the chat template makes of a conversation."""
    try:
        return str(processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False))
    except Exception as error:  # jinja's errors, and what the template raises itself
        raise InputsError(f"the chat template of the model is broken ({_line(error)}): {_ADVICE}") from error


def _placeholders(processor: Any) -> list[str]:
    """What stands for a picture in a prompt."""
    found = (getattr(processor, name, None) for name in ("image_token", "boi_token"))
    return list(dict.fromkeys(token for token in found if isinstance(token, str) and token))


def _line(error: Exception) -> str:
    """The kind of an exception and what it says, on one line."""
    said = "".join(c if c.isprintable() else "?" for c in " ".join(str(error).split()))
    text = f"{type(error).__name__}: {said}" if said else type(error).__name__
    return text if len(text) <= 160 else text[:157] + "..."
