"""A vision-language model without its language model: encoder and projector, for `hired.reduce`."""

from __future__ import annotations

import copy
from typing import Any

from hired.errors import ModelLoadError
from hired.gguf.names import EMBEDDINGS, language_name
from hired.loading import DTYPES
from hired.loading.checkpoints import check_complete, load_config, load_processor
from hired.loading.devices import usable_device
from hired.loading.named import source_of
from hired.loading.shards import Shards
from hired.loading.strangers import quiet, strangers

__all__ = ["load_tower", "processor_of", "restore", "without_layers"]

_PROCESSOR = "hired_processor"
"""Attribute of a tower that holds the processor it came with."""

_PER_LAYER = ("layer_types", "no_rope_layers", "moe_layers", "mlp_layer_types")
"""Lists in text configurations with an entry a layer."""


def load_tower(
    name: str, device: Any = "auto", dtype: str = "auto", trust_remote_code: bool = False, words: bool = False
) -> tuple[Any, Any]:
    """Loads what `hired.reduce` needs of a checkpoint: the vision encoder and the projector.

    The language model stays where it is: of its weights none is read, and of a checkpoint on the hub only those files
    are downloaded that hold others.

    Args:
        name: ``tiny``, a directory written by ``save_pretrained``, or a hub id.
        device: ``auto`` (a GPU where there is one), or what `torch.device` takes.
        dtype: "auto" (the checkpoint's own; float32 for ``tiny``), "float32", "bfloat16" or "float16".
        trust_remote_code: run code that comes with the checkpoint's configuration or processor.
        words: load the embeddings of the vocabulary too, which methods compare with that read the question, such as
            "cdpruner".

    Returns:
        The model, in eval mode, and its processor. The model has the checkpoint's whole configuration, a language
        model without layers, and embeddings of one token unless `words`: it reduces inputs as the whole model does, and
        answers nothing.

    Raises:
        ModelLoadError: the checkpoint, device or dtype cannot be had, or weights of encoder or projector are missing
            or of another shape.
        UnsupportedModelError: a model of no known family.
    """
    if dtype not in DTYPES:
        raise ModelLoadError(f"unknown dtype {dtype!r}: use one of {', '.join(DTYPES)}")
    with quiet():
        place = usable_device(device)
        source = source_of(name)
        config = load_config(source, name, trust_remote_code)
        if getattr(config, "quantization_config", None) is not None:
            raise ModelLoadError(f"{name!r} is quantised: take the tower from the checkpoint that it was made from")
        processor = load_processor(source, name, trust_remote_code)
        kind = "float32" if name == "tiny" and dtype == "auto" else dtype
        with strangers(name, "load the vision encoder of"):
            tower = _tower(source, name, config, kind, words)
        with strangers(name, f"move to {place} the vision encoder of"):
            return tower.to(place).eval(), processor


def processor_of(tower: Any) -> Any:
    """The processor that a tower of `load_tower` came with; None for other models."""
    return getattr(tower, _PROCESSOR, None)


def _tower(source: str, name: str, config: Any, dtype: str, words: bool) -> Any:
    from hired.costs.shapes import meta_model
    from hired.greedy import generation_settings

    shards = Shards(source, name)
    left = {None, EMBEDDINGS} if words else {None}
    wanted = [each for each in shards.names if language_name(each) in left]
    shards.fetch(wanted)
    small = without_layers(config, words)
    model, info = type(meta_model(small)).from_pretrained(
        None,
        config=small,
        state_dict={each: shards.read(each) for each in wanted},
        dtype=dtype,
        output_loading_info=True,
        ignore_mismatched_sizes=True,
    )
    missing = [key for key in info["missing_keys"] if language_name(str(key)) in left]
    check_complete({**info, "missing_keys": missing}, name)
    restore(model.config, config)
    found = generation_settings(source)
    if found is not None:
        model.generation_config = found
    return model


def without_layers(config: Any, words: bool) -> Any:
    """The configuration of the same model, whose language model has no layers and, without `words`, knows one token."""
    small = copy.deepcopy(config)
    small.tie_word_embeddings = True  # an LM head of its own would take memory
    text = small.get_text_config()
    for key in _PER_LAYER:
        if getattr(text, key, None):
            setattr(text, key, [])
    text.num_hidden_layers = 0
    if not words:
        text.vocab_size, text.pad_token_id = 1, None
    return small


def restore(small: Any, config: Any) -> None:
    """Lets a model's configuration tell of the whole checkpoint again."""
    small.tie_word_embeddings = config.tie_word_embeddings
    text, whole = small.get_text_config(), config.get_text_config()
    for key in ("num_hidden_layers", "vocab_size", "pad_token_id", *_PER_LAYER):
        if hasattr(whole, key):
            setattr(text, key, copy.copy(getattr(whole, key)))
