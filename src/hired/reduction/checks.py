"""What can be wrong with settings and inputs, told before the model runs."""

from collections.abc import Mapping
from typing import Any, Literal, cast, get_args

from torch import Tensor

from hired.core.budget import EncoderBudget, Newlines
from hired.core.image import ATTENTION
from hired.errors import BudgetError, InputsError, UnsupportedModelError
from hired.families import Encoder, Family
from hired.methods import Method
from hired.reduction.entries import KNOWN

Positions = Literal["consecutive", "original"]


def check_choices(family: Family, newlines: str, positions: Positions | None) -> Positions:
    """The positions that kept tokens take, by default the family's.

    Raises:
        BudgetError: a value of `newlines` or `positions` that does not exist, or not in this family.
    """
    if positions is None:
        positions = "original" if family.grid_positions else "consecutive"
    check_newlines(newlines)
    _check_known("positions", positions, get_args(Positions))
    if family.grid_positions and positions != "original":
        raise BudgetError(
            f"positions={positions!r} is not supported for {family.name}, whose positions tell where in the picture a"
            ' token stands: use "original", the default'
        )
    return positions


def check_newlines(value: str) -> Newlines:
    """The same value.

    Raises:
        BudgetError: one that does not exist.
    """
    _check_known("newlines", value, get_args(Newlines))
    return cast(Newlines, value)


def _check_known(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise BudgetError(f"{name}={value!r}: use one of {', '.join(map(repr, known))}")


def check_encoder_budget(
    value: float | EncoderBudget | None, method: Method, newlines: Newlines
) -> EncoderBudget | None:
    """The parsed encoder budget.

    Raises:
        BudgetError: out of range, or together with a setting that chooses tokens it may have left out.
    """
    parsed = EncoderBudget.parse(value)
    if parsed is not None and not ("first" in method.reads and hasattr(method, "shares")):
        raise BudgetError(f"encoder_budget needs shares known from the initial layer; method {method.name!r} has none")
    if parsed is not None and newlines == "keep":
        raise BudgetError('encoder_budget cannot be combined with newlines="keep": leave one of them out')
    return parsed


def check_encoder(family: Family, model: Any, method: Method, narrowed: EncoderBudget | None) -> Encoder | None:
    """The encoder's parts, None where the method reads nothing in it.

    Raises:
        UnsupportedModelError: an encoder that the family does not know, or that cannot be given a budget of its own; a
            method that reads the question, where the model's words were left out.
    """
    if "question" in method.reads and _wordless(model):
        raise UnsupportedModelError(
            f"method {method.name!r} reads the question, whose words this model was loaded without: load it with"
            " hired.gguf.load_tower(..., words=True)"
        )
    inside = {*ATTENTION, "pixels", *(("states",) if family.tokenwise else ())}
    if not inside & set(method.reads):
        return None
    encoder = family.parts(model)
    if narrowed is not None and not family.tokenwise:
        raise UnsupportedModelError(f"encoder_budget is not supported for {family.name}: leave it out")
    if narrowed is not None and encoder.last <= encoder.first:
        raise UnsupportedModelError("encoder_budget needs an encoder with layers after the initial one: leave it out")
    return encoder


def _wordless(model: Any) -> bool:
    """Whether the embeddings of a model without its LLM were left out too."""
    table = getattr(model.get_input_embeddings(), "num_embeddings", None)
    return table is not None and int(table) < int(model.config.get_text_config().vocab_size)


_OF_ENCODER = ("vision_", "interpolate_pos_encoding")
"""How names begin of arguments that change what the encoder gives; others belong to the language model."""


def check_mapping(inputs: Any) -> None:
    """Raises `InputsError` for inputs that are no mapping."""
    if not isinstance(inputs, Mapping):
        raise InputsError(f"inputs must be the mapping the processor returned, got {type(inputs).__name__}")


def check_inputs(inputs: Mapping[str, Any], model: Any) -> None:
    """Refuses inputs that lack what is needed, or hold what is not supported.

    Raises:
        InputsError: such inputs.
    """
    check_mapping(inputs)
    if inputs.get("mm_encoder_outputs") is not None:
        raise InputsError("these inputs are already encoded (mm_encoder_outputs): pass what the processor returned")
    if any("video" in key and value is not None for key, value in inputs.items()):
        raise InputsError("videos are not supported yet: pass images only")
    if inputs.get("inputs_embeds") is not None:
        raise InputsError(
            "inputs_embeds hold no placeholders, which tell where a picture's tokens stand: pass input_ids instead"
        )
    ids = inputs.get("input_ids")
    if not isinstance(ids, Tensor) or ids.dim() != 2:
        raise InputsError('input_ids must be a (batch, length) tensor: call the processor with return_tensors="pt"')
    if ids.is_floating_point() or ids.is_complex() or not ids.numel():
        raise InputsError(f"input_ids must be whole numbers, at least one a row, got {ids.dtype} {tuple(ids.shape)}")
    for name, value in (("input_ids", ids), ("pixel_values", inputs.get("pixel_values"))):
        # Accelerate's hooks move inputs themselves where they spread a model with `device_map` or offload it.
        spread = getattr(model, "hf_device_map", None) or model.device.type == "meta"
        if isinstance(value, Tensor) and not spread and value.device != model.device:
            raise InputsError(f"{name} is on {value.device}, the model on {model.device}: call .to(model.device)")
    mask = inputs.get("attention_mask")
    if mask is not None and (not isinstance(mask, Tensor) or mask.dim() != 2 or len(mask) != len(ids)):
        raise InputsError("attention_mask must be a tensor of the shape of input_ids")
    if isinstance(inputs.get("logits_to_keep"), Tensor):
        raise InputsError(
            "logits_to_keep as a tensor names places of the full prompt, which a shortened one does not have: give how"
            " many of the last logits to keep"
        )
    _check_encoder_arguments(inputs, model.config)


def check_entries(inputs: Mapping[str, Any]) -> None:
    """Raises `InputsError` for entries of one value a token that are not of the shape of `input_ids`."""
    shape = inputs["input_ids"].shape
    for name in KNOWN:
        value = inputs.get(name)
        if value is not None and (not isinstance(value, Tensor) or value.shape != shape):
            raise InputsError(f"{name} must be a tensor of the shape of input_ids")
    places = inputs.get("position_ids")
    if places is not None and (
        not isinstance(places, Tensor) or places.dim() not in (2, 3) or places.shape[-1] != shape[1]
    ):
        raise InputsError("position_ids must be (batch, length) or (axes, batch, length), of the length of input_ids")


def _check_encoder_arguments(inputs: Mapping[str, Any], config: Any) -> None:
    """Refuses arguments of a call by which the encoder would do something else than the configuration says."""
    for name, value in inputs.items():
        if value is None or not name.startswith(_OF_ENCODER):
            continue
        usual = getattr(config, name, None)
        same = list(value) == list(usual) if isinstance(value, list | tuple) and usual else value == usual
        if not same:
            raise InputsError(
                f"{name}={value!r} in a call is not supported under a budget, as tokens are chosen by the layers that"
                f" the configuration names ({name}={usual!r}): set model.config.{name}, or leave it out"
            )
