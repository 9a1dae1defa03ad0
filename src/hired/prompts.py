"""A question and its picture as a model's inputs, by the checkpoint's own processor and chat template.

Templates and processors come with checkpoints and raise almost anything; here it is an `InputsError` of one line.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

from hired.errors import InputsError

__all__ = ["inputs", "prompt"]

_PLAIN = "USER: {image}\n{question} ASSISTANT:"
_ADVICE = "mend the template (chat_template.jinja in the model's directory)"


def prompt(processor: Any, question: str) -> str:
    """The text of one picture and one question, by the chat template where the processor has one.

    Raises:
        InputsError: The template is broken or leaves the picture or the question out, or the question holds the
            picture's placeholder.
    """
    for token in _placeholders(processor):
        if token in question:
            raise InputsError(f"the question holds {token!r}, which stands for a picture: leave it out")
    if not getattr(processor, "chat_template", None):
        image = next(iter(_placeholders(processor)), "<image>")
        return _PLAIN.format(image=image, question=question)
    content = [{"type": "image"}, {"type": "text", "text": question}]
    words = _rendered(processor, content)
    known = _placeholders(processor)
    if known and not any(token in words for token in known):
        raise InputsError(f"the chat template leaves the picture out (no {known[0]!r} in the prompt): {_ADVICE}")
    with contextlib.suppress(InputsError):  # a template may want a text
        if question and words == _rendered(processor, [content[0], {"type": "text", "text": ""}]):
            words = ""
    if not words:
        raise InputsError(f"the chat template leaves the question out: {_ADVICE}")
    return words


def inputs(model: Any, processor: Any, words: Sequence[str], images: Sequence[Any], **options: Any) -> Any:
    """What the processor makes of prompts with a picture each, on the model's device.

    Args:
        model: The model that they are for.
        processor: Its processor.
        words: The prompts.
        images: The pictures.
        options: Passed on to the processor.

    Raises:
        InputsError: The processor cannot take them, or makes tokens that the model does not have.
    """
    try:
        made = processor(text=list(words), images=list(images), return_tensors="pt", **options).to(model.device)
        top, known = int(made["input_ids"].max()), int(model.get_input_embeddings().num_embeddings)
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


def _rendered(processor: Any, content: list[dict[str, str]]) -> str:
    """What the chat template makes of a message."""
    try:
        message = [{"role": "user", "content": content}]
        return str(processor.apply_chat_template(message, add_generation_prompt=True, tokenize=False))
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
