"""Questions: text, with nothing in it that prompts give another meaning."""

from __future__ import annotations

from typing import Any

from hired.errors import InputsError

__all__ = ["check_tags", "check_text"]


def check_text(question: str, what: str = "question") -> None:
    """Raise `InputsError` for a question, or `what` else it is, that is not text, before anything is loaded."""
    try:
        question.encode()
    except UnicodeEncodeError as error:
        raise InputsError(f"the {what} is not valid UTF-8: write it in the terminal's encoding") from error


def check_tags(processor: Any, question: str, what: str = "question") -> None:
    """Raise `InputsError` for a question with a tag of the prompt in it, such as the one that stands for a picture.

    The processor puts tokens in place of some tags wherever they stand, and the tokenizer reads the others.
    """
    tokenizer = processor.tokenizer
    special = set(tokenizer.all_special_tokens) - {tokenizer.unk_token}
    added = getattr(tokenizer, "added_tokens_decoder", {})
    special |= {token.content for token in added.values() if token.special}
    named = {getattr(processor, f"{kind}_token", None) for kind in ("image", "video")}
    own = {value for name, value in vars(processor).items() if name.endswith(("_token", "_tag"))}
    known = {token.content for token in added.values()}
    tags = special | named | {tag for tag in own if isinstance(tag, str) and tag in known}
    found = [tag for tag in tags - {tokenizer.unk_token} if isinstance(tag, str) and tag.strip() and tag in question]
    if found:
        tag = max(found, key=lambda tag: (len(tag), tag))
        raise InputsError(f"the {what} holds {tag!r}, which means something in this model's prompts: leave it out")
