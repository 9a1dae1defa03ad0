"""Greedy answers, whatever the checkpoint's `generation_config.json` asks for.

transformers fills what a caller leaves open from that file: sampling, beams, penalties, several sequences, a dict in
place of ids. Of it, answers here take the tokens that end them, and nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hired.errors import ModelLoadError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["end_tokens", "generate", "generation_settings", "repaired", "texts", "turn"]


def end_tokens(model: Any) -> list[int] | None:
    """The ids that end an answer, as the checkpoint has them; None where it names none.

    Raises:
        ModelLoadError: They are something else than ids.
    """
    found = getattr(model.generation_config, "eos_token_id", None)
    if found is None:
        return None
    ids = list(found) if isinstance(found, list | tuple) else [found]
    if not ids or any(type(each) is not int for each in ids):
        wanted = "must be a whole number or a list of them"
        raise ModelLoadError(f"eos_token_id in the model's generation_config.json {wanted}, got {found!r:.80}")
    return ids


def repaired(source: str) -> Any:
    """What `from_pretrained` takes for a checkpoint whose `generation_config.json` transformers refuses to read.

    Args:
        source: A model directory or hub id.

    Returns:
        A `GenerationConfig` with the tokens that end an answer, or None where the file is well, not there or no JSON
        (transformers has answers to these).

    Raises:
        ModelLoadError: The file holds something else than settings.
    """
    from transformers import GenerationConfig
    from transformers.utils import cached_file

    try:
        GenerationConfig.from_pretrained(source)
        return None
    except OSError:
        return None
    except Exception:  # settings that do not go together, or of the wrong type: none of them is used
        path = cached_file(source, "generation_config.json")
    found = json.loads(Path(path).read_text(encoding="utf-8"))
    if not isinstance(found, dict):
        raise ModelLoadError("the model's generation_config.json holds no settings ({...}): mend or remove it")
    return GenerationConfig(eos_token_id=found.get("eos_token_id"))


def generation_settings(source: str) -> Any:
    """A checkpoint's `GenerationConfig`, or as much of it as `repaired` saves; None where it has none.

    Args:
        source: A model directory or hub id.

    Raises:
        ModelLoadError: See `repaired`.
    """
    from transformers import GenerationConfig

    found = repaired(source)
    if found is not None:
        return found
    try:
        return GenerationConfig.from_pretrained(source)
    except OSError:
        return None


def generate(
    model: Any, processor: Any, inputs: Mapping[str, Any], max_new_tokens: int, streamer: Any = None
) -> Tensor:
    """(batch, prompt + new) ids of greedy answers.

    Args:
        model: The model.
        processor: Its processor, whose tokenizer names the padding behind an answer.
        inputs: What `generate` takes.
        max_new_tokens: The longest answer.
        streamer: Told of every token.

    Raises:
        ModelLoadError: See `end_tokens`.
    """
    return turn(model, processor, inputs, max_new_tokens, streamer)[0]


def turn(
    model: Any, processor: Any, inputs: Mapping[str, Any], max_new_tokens: int, streamer: Any = None
) -> tuple[Tensor, Any]:
    """What `generate` here gives, and the key-value cache, which holds all of it but the last token.

    Arguments and errors are those of `generate`; among `inputs` may be the cache of an earlier turn, and `input_ids`
    are the whole conversation then.
    """
    from transformers import GenerationConfig

    from hired.caching import cache_of

    tokens = {"eos_token_id": end_tokens(model), "pad_token_id": processor.tokenizer.pad_token_id or 0}
    greedy = GenerationConfig(
        max_new_tokens=max_new_tokens, do_sample=False, num_beams=1, return_dict_in_generate=True, **tokens
    )
    checkpoints = model.generation_config
    model.generation_config = GenerationConfig(**tokens)  # it fills what the call leaves open
    try:
        output = model.generate(**inputs, generation_config=greedy, streamer=streamer)
    finally:
        model.generation_config = checkpoints
    return output.sequences, cache_of(output)


def texts(processor: Any, ids: Tensor) -> list[str]:
    """Answers as text, without special tokens and without space at their ends.

    Args:
        processor: The model's.
        ids: (batch, new) ids behind the prompts.
    """
    found = processor.tokenizer.batch_decode(ids, skip_special_tokens=True)
    return [str(text).strip() for text in found]
