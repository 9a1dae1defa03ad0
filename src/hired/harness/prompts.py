"""Prompts of lmms-eval's class `llava_hf`, and those of the paper's set-up.

The paper was measured with lmms-eval 0.1.2, whose `llava_hf` put `<image>` and a line break in front of the question
and handed that text to the tokenizer's chat template, or to Vicuna's where the tokenizer had none. In 0.7.3 that is the
class of plain prompts; the one of chats asks the processor's template instead.
"""

from __future__ import annotations

from typing import Any

from hired.errors import HiredError

__all__ = ["check_template"]

_QUESTION = "Which one?"


def check_template(base: Any, config: Any, name: str) -> None:
    """Sees to it that `llava_hf` with plain prompts asks what it is meant to ask, before anything is asked.

    Templates that checkpoints have today want a message in parts. Given a text, they may leave picture and question out
    without an error. A Vicuna or Llama 2 then gets the template that lmms-eval has for tokenizers without one, which is
    what the paper's set-up gave it.

    Args:
        base: the class's instance; its `chat_template` is set where the tokenizer's will not do.
        config: the checkpoint's configuration.
        name: of the class.

    Raises:
        HiredError: a template that loses the question, of a language model that has another one than Vicuna.
    """
    own = getattr(getattr(base, "tokenizer", None), "chat_template", None)
    if name != "llava_hf" or own is None or base.chat_template is not None or _kept(base.tokenizer):
        return
    text = config.get_text_config()
    if text.model_type != "llama" or text.vocab_size >= 33_000:  # Llama 3 has 128,256 words, and another template
        raise HiredError(
            "the chat template of this checkpoint loses the question when it is given plain text, as lmms-eval's class"
            " of plain prompts does: use the one of chats (leave --force_simple out; hired reproduce: --prompts chat)"
        )
    from lmms_eval.models.simple.llava_hf import VICUNA_CHAT_TEMPLATE

    base.chat_template = VICUNA_CHAT_TEMPLATE


def _kept(tokenizer: Any) -> bool:
    """Whether the tokenizer's template keeps a picture and a question that it is given as one text."""
    message = [{"role": "user", "content": f"<image>\n{_QUESTION}"}]
    try:
        words = tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
    except Exception:  # jinja's errors, and what a template raises itself
        return False
    return "<image>" in words and _QUESTION in words
