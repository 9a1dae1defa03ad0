"""What the small models trained here share: tokenizer, chat template, sizes of the tower and the language model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, PreTrainedTokenizerFast

from hired.forms import COLOURS, KEYS, SHAPES, TILE, TITLES

SPECIAL = ("<pad>", "<s>", "<|end|>", "<|user|>", "<|assistant|>", "<image>")
QUESTIONS = (
    "What is {}?",
    "What is {}?",
    "What is the {}?",
    "{}?",
    "Read {}.",
    "What does {} say?",
    "Please read the value of {}.",
    "How much is {}?",
)
"""Ways to ask for a value; the first is the usual one."""
VARIANTS: dict[str, tuple[str, ...]] = {
    r"What colour is the (\w+)\?": (r"What color is the \1?", r"Which colour is the \1?", r"The \1 has what colour?"),
    r"What shape is (\w+)\?": (r"Which shape is \1?", r"What is the shape in \1?"),
    r"How many (\w+)\?": (r"How many \1 are there?", r"Count the \1."),
    r"Where is the (\w+)\?": (r"Where do you see the \1?", r"Where on the page is the \1?"),
    r"What is (left of|right of|above) the (\w+)\?": (r"What is to be seen \1 the \2?", r"What do you see \1 the \2?"),
    r"What is under the (\w+)\?": (r"What is below the \1?", r"What do you see under the \1?"),
    r"What is the title\?": (r"What does the title say?", r"Read the title."),
}
"""Other ways to ask the questions of `hired.forms` about shapes and places."""
PLACES = ("top", "bottom", "left", "right", "middle")
PREFACES = (
    "Here is a page.",
    "Look at this picture.",
    "This is a scan of a form; answer the questions about it.",
    "You see a document with some labelled values.",
    "Answer with the digits only.",
    "Please read this receipt carefully and then answer.",
)
"""Text that may stand before a picture."""
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|{{ message['role'] if message['role'] == "
    "'assistant' else 'user' }}|>{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}"
    "{% if message['role'] == 'assistant' %}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
"""Chat template: a system message reads like a user's."""


def tokenizer(tags: Sequence[str] = (), scenes: bool = True) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer in which every key of `KEYS` and every digit is one token, and so is each of `tags`.

    Args:
        tags: Special tokens behind all others.
        scenes: Whether the words of questions about shapes and places are tokens too.
    """
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"[0-9]"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tok.decoder = decoders.ByteLevel()
    corpus = [q.format(form) for q in QUESTIONS for k in KEYS for form in (k, k.lower())] * 9
    corpus += list(PREFACES) * 9
    words = (*SHAPES, *COLOURS, *PLACES, *TITLES, *(name.lower() for name in TITLES)) if scenes else ()
    if scenes:
        asked = [form for pattern, forms in VARIANTS.items() for form in (_plain(pattern), *forms)]
        corpus += [re.sub(r"\\\d", word, form) for form in asked for word in (*SHAPES, *COLOURS)] * 9
        corpus += [form for word in words for form in (word, " " + word)] * 40
        corpus += [f" {name}es" if name == "cross" else f" {name}s" for name in (*SHAPES, "shape")] * 40
    trainer = trainers.BpeTrainer(
        vocab_size=1100 if scenes else 900,
        min_frequency=2,
        special_tokens=[AddedToken(s, special=True, normalized=False) for s in SPECIAL],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tok.train_from_iterator(corpus, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tok,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="<|end|>",
        additional_special_tokens=["<|user|>", "<|assistant|>", "<image>"],
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=8192,
    )
    for key in KEYS:
        for form in (key, " " + key, " " + key.lower()):
            if len(fast.encode(form, add_special_tokens=False)) != 1:
                raise RuntimeError(f"{form!r} is not one token")
    for word in words:
        for form in (word, " " + word):
            if len(fast.encode(form, add_special_tokens=False)) != 1:
                raise RuntimeError(f"{form!r} is not one token")
    fast.add_tokens([AddedToken(tag, special=True, normalized=False) for tag in tags])
    return fast


def _plain(pattern: str) -> str:
    """The question that a pattern of `VARIANTS` matches, its words as numbered gaps."""
    numbers = iter("123")
    filled = re.sub(r"\(.*?\)", lambda _: "\\" + next(numbers), pattern)
    return filled.replace("\\?", "?")


def vision() -> dict[str, Any]:
    """The configuration that all vision towers here share."""
    return {
        "hidden_size": 160,
        "intermediate_size": 512,
        "num_hidden_layers": 6,
        "num_attention_heads": 5,
        "image_size": TILE,
        "patch_size": 8,
        "hidden_act": "gelu_pytorch_tanh",
    }


def language(tok: PreTrainedTokenizerFast) -> LlamaConfig:
    """The configuration of the language model."""
    return LlamaConfig(
        vocab_size=-(-len(tok) // 64) * 64,
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=3,
        num_attention_heads=6,
        num_key_value_heads=6,
        head_dim=32,
        max_position_embeddings=8192,
        pad_token_id=tok.pad_token_id,
        bos_token_id=tok.bos_token_id,
        eos_token_id=tok.eos_token_id,
        tie_word_embeddings=False,
    )
