"""What the small models trained here share: tokenizer, chat template, sizes of the tower and the language model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, PreTrainedTokenizerFast

from hired.forms import KEYS, TILE

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


def tokenizer(tags: Sequence[str] = ()) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer in which every key of `KEYS` and every digit is one token, and so is each of `tags`."""
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
    trainer = trainers.BpeTrainer(
        vocab_size=900,
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
    fast.add_tokens([AddedToken(tag, special=True, normalized=False) for tag in tags])
    return fast


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
