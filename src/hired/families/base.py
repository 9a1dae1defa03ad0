"""What HiRED must know of a model family. A family is one file with one subclass of `Family`."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPooling

from hired.core.layout import Layout
from hired.core.transfer import moved_to
from hired.errors import InputsError, UnsupportedModelError

Size = tuple[int, int]

Limits = tuple[int, int]
"""Fewest and most of what a processor shows the encoder of a picture, in `Family.limited`."""


def parameters_at_hand(module: nn.Module) -> AbstractContextManager[Any]:
    """Loads the module's own parameters where accelerate offloads them: its hook runs for `forward` only."""
    if not hasattr(module, "_hf_hook"):
        return nullcontext()
    from accelerate.utils import align_module_device

    loaded: AbstractContextManager[Any] = align_module_device(module)
    return loaded


@dataclass(frozen=True)
class Encoder:
    """The parts of a vision encoder that HiRED reads and steers.

    Attributes:
        tower: the encoder, called with all partitions in one batch; its attention implementation is switched while
            it is read.
        layers: its layers, in order; each takes (batch, tokens, d) hidden states first, and gives them back.
        states: which hidden states make the features, put side by side: i is the input of layer i, `len(layers)`
            the output of the last one.
        cls: index of the CLS token in the encoder's sequence; None for an encoder without one, whose scores are the
            attention that each patch receives, averaged over all queries.
        merge: (N, k) int64, the k encoder patches that each visual token is made of where the model merges equally
            many patches of a partition (pixel shuffle, 2 x 2 merger, average pool); None where a token is one patch.
        tells: index of the layer that tells importance, where that is not the last used one because that one does not
            attend to everything (windows); None for the last used one.
        starts: index of the initial layer where it is not the usual one, for the same reason; None for `first`'s rule.
        middles: index of the layer half-way where it is not the usual one, for the same reason; None for `middle`'s
            rule.
        attends: name of the attention module in a layer.
    """

    tower: Any
    layers: Sequence[nn.Module]
    states: tuple[int, ...]
    cls: int | None = 0
    merge: Tensor | None = None
    tells: int | None = None
    starts: int | None = None
    middles: int | None = None
    attends: str = "self_attn"

    @property
    def first(self) -> int:
        """Index of the initial layer (paper: l_init = 0); 1 in an encoder without a CLS token.

        In layer 0 a patch has seen nothing but itself, and blank paper receives as much as anything. A CLS token has
        learned what to look for; what patches receive only tells once they have seen each other. Measured on a trained
        model: `benchmarks/stand-in.json`.
        """
        if self.starts is not None:
            return self.starts
        return 0 if self.cls is not None else min(1, self.last)

    @property
    def last(self) -> int:
        """Index of the last layer whose output the model uses (paper: l_final), or of the one that `tells`."""
        return max(self.states) - 1 if self.tells is None else self.tells

    @property
    def middle(self) -> int:
        """Index of the layer half-way: 9 of CLIP-L's 24, 16 of Qwen2.5-VL's 32 (HiPrune, arXiv 2508.00553)."""
        if self.middles is not None:
            return self.middles
        return min(len(self.layers) * 3 // 8 if self.cls is not None else len(self.layers) // 2, self.last)

    def attention(self, layer: int) -> nn.Module:
        """The attention module of a layer."""
        module: nn.Module = getattr(self.layers[layer], self.attends)
        return module

    def scores(self, rows: Tensor) -> Tensor:
        """What a tap read, (..., keys), over the N visual tokens of a partition: without the key of the CLS token, and
        pooled as `merge` says, a token having the mean of its patches.
        """
        if self.cls is not None:
            last = self.cls % rows.shape[-1]
            rows = torch.cat((rows[..., :last], rows[..., last + 1 :]), -1) if last else rows[..., 1:]
        return rows if self.merge is None else rows[..., moved_to(rows.device, self.merge)].mean(-1)


class Family:
    """Facts of one family. The defaults fit models that stack all partitions of all images in one batch.

    Attributes:
        name: how `hired models` calls it.
        model_types: `config.model_type` of the models it covers.
        classes, encoder, partitions, tokens, verified: one line each for `hired models` and the docs.
        image_keys: what of the processor's output the encoder consumes.
        grid_positions: the positions of visual tokens depend on their place in the picture (M-RoPE), so that kept ones
            must keep theirs; `positions` gives them.
        batched: the encoder takes all partitions as one batch, of one entry each.
        full_last: the full image follows its sub-images in that batch.
        tokenwise: each visual token is made of one encoder output alone, so that only kept ones need be made;
            `pixels`, `project` and `newline` say how.
        limited: what limits of the processor, beside the configuration, decide how a picture is shown: "pixels" where
            it keeps its resolution between a fewest and a most, "tiles" where it is cut into such a number of them;
            None where the configuration tells all.
    """

    name: ClassVar[str]
    model_types: ClassVar[tuple[str, ...]]
    classes: ClassVar[str]
    encoder: ClassVar[str]
    partitions: ClassVar[str]
    tokens: ClassVar[str]
    verified: ClassVar[str]
    image_keys: ClassVar[tuple[str, ...]] = ("pixel_values",)
    grid_positions: ClassVar[bool] = False
    batched: ClassVar[bool] = True
    full_last: ClassVar[bool] = False
    tokenwise: ClassVar[bool] = False
    limited: ClassVar[str | None] = None

    def image_token(self, model: Any) -> int:
        """Id of the placeholder that stands for one visual token in `input_ids`."""
        return int(model.config.image_token_id)

    def layouts(self, model: Any, inputs: Mapping[str, Any], sizes: list[Size] | None) -> list[Layout]:
        """The layout of every image, in the order of the features. Runs no part of the model.

        Args:
            model: the model.
            inputs: the processor's output.
            sizes: (width, height) of every picture where the caller gave `images=`, else None.

        Raises:
            InputsError: the inputs do not fit the model.
        """
        raise NotImplementedError

    def blank_inputs(self, model: Any, sizes: list[Size], limits: Limits | None = None) -> dict[str, Tensor]:
        """What `layouts` reads of the processor's output for pictures of the given (width, height).

        Pixels are on the meta device, so that tokens can be counted without pictures and without memory.

        Args:
            model: the model.
            sizes: (width, height) of every picture in pixels.
            limits: those of the processor, wanted where the family is `limited` and not read by others.

        Raises:
            UnsupportedModelError: a family that has not told how its processor cuts pictures, or wants limits.
            InputsError: a picture that the processor refuses.
        """
        raise UnsupportedModelError(f"tokens of {self.name} are not known without its processor: use `hired.reduce`")

    def parts(self, model: Any) -> Encoder:
        """The encoder's parts.

        Raises:
            UnsupportedModelError: an encoder this family does not know.
        """
        raise NotImplementedError

    def encode(self, model: Any, inputs: Mapping[str, Any]) -> Tensor:
        """Features of all images as the LLM will see them, in the order of their placeholders.

        (tokens, hidden), or (tokens, features, hidden) in a family whose LLM takes several features a token.
        """
        given = {key: inputs[key] for key in self.image_keys if key in inputs}
        with parameters_at_hand(core_model(model)):
            found = model.get_image_features(**given, return_dict=True)
        return self.features(found)

    def features(self, output: Any) -> Tensor:
        """What `encode` gives, out of what `get_image_features` gives or what `container` holds."""
        found = output.pooler_output
        return found.flatten(0, -2) if isinstance(found, Tensor) else torch.cat(list(found))

    def pixels(self, inputs: Mapping[str, Any], layouts: list[Layout]) -> Tensor:
        """All partitions of all images as the encoder takes them, (partitions, channels, height, width).

        Only for families that are `tokenwise`.
        """
        raise NotImplementedError

    def project(self, model: Any, patches: Tensor) -> Tensor:
        """What the LLM sees of (K, d) encoder outputs, (K, hidden). Only for families that are `tokenwise`."""
        raise NotImplementedError

    def newline(self, model: Any) -> Tensor | None:
        """(hidden,) what the LLM sees of a row-end newline, None in a family without."""
        return None

    def embedded(self, model: Any, features: Tensor) -> Tensor:
        """(T, hidden) what stands in place of the LLM's embeddings, of T tokens of `encode`."""
        return features if features.dim() == 2 else features[:, 0]

    def container(self, features: list[Tensor]) -> BaseModelOutputWithPooling:
        """`features`, one (K, hidden) tensor an image, as `mm_encoder_outputs["image"]` must hold them."""
        return BaseModelOutputWithPooling(pooler_output=features)

    def positions(self, model: Any, inputs: Mapping[str, Any]) -> Tensor:
        """(axes, batch, length) int64 positions of the full prompt. Only for families with `grid_positions`."""
        raise NotImplementedError

    def remember(self, model: Any, positions: Tensor, mask: Tensor | None) -> None:
        """Tells the model where text goes on behind a shortened prompt. Only for families with `grid_positions`.

        Args:
            model: the model.
            positions: (..., batch, length) int64 of the shortened prompt.
            mask: (batch, length), None if all count.
        """
        raise NotImplementedError

    def full_places(self, layouts: list[Layout]) -> list[int]:
        """Where the full image of every picture stands in the encoder's batch."""
        ends = list(accumulate((layout.partitions for layout in layouts), initial=0))
        return [end - 1 for end in ends[1:]] if self.full_last else ends[:-1]

    def full_images(self, layouts: list[Layout]) -> Tensor:
        """The same as (images,) int64."""
        return torch.tensor(self.full_places(layouts))

    def first_rows(self, rows: list[Tensor], encoder: Encoder, layouts: list[Layout]) -> list[Tensor]:
        """The initial layer's scores by image, (heads, N) of its full image.

        Args:
            rows: what the tap read, one entry a call of the layer: of `full_images`, or of all if not `batched`.
            encoder: the encoder's parts.
            layouts: the images.
        """
        return list(encoder.scores(torch.cat(rows)))

    def last_rows(self, rows: list[Tensor], encoder: Encoder, layouts: list[Layout]) -> list[Tensor]:
        """The last layer's scores by image, (P, heads, N), partitions in the order of the layout."""
        return self.by_image(encoder.scores(torch.cat(rows)), layouts)

    def by_image(self, batch: Tensor, layouts: list[Layout]) -> list[Tensor]:
        """The encoder's batch, (partitions of all images, ...), by image, partitions in the order of the layout."""
        each = torch.split(batch, [layout.partitions for layout in layouts])
        return [part.roll(1, 0) for part in each] if self.full_last else list(each)


def tensor_rows(features: list[Tensor]) -> BaseModelOutputWithPooling:
    """`Family.container` where the model wants one tensor: (rows, 1, hidden), which beams expand row by row."""
    return BaseModelOutputWithPooling(pooler_output=torch.cat(features)[:, None])


def core_model(model: Any) -> Any:
    """The part of a model that holds encoder and LLM: without its language modelling head, and any PEFT wrapper."""
    unwrap = getattr(model, "get_base_model", None)
    return (unwrap() if callable(unwrap) else model).base_model


def unwrapped(module: Any) -> Any:
    """The module that runs in place of a part of the model: the part, or what is in a wrapper around it.

    Seen through are `torch.compile` and PEFT's `modules_to_save`.
    """
    compiled = getattr(module, "_orig_mod", None)
    if compiled is not None:
        return unwrapped(compiled)
    parts = dict(module.named_children())
    copies: Any = parts.get("modules_to_save")
    if copies is None or "original_module" not in parts:
        return module
    active = [name for name in module.active_adapters if name in copies]
    return unwrapped(module.original_module if module.disable_adapters or not active else copies[active[0]])


def used_states(used: int | Sequence[int], layers: int) -> tuple[int, ...]:
    """The hidden states that `vision_feature_layer` names, of an encoder of `layers` layers: none negative."""
    return tuple(index if index >= 0 else layers + 1 + index for index in ([used] if isinstance(used, int) else used))


def match_sizes(sizes: list[Size] | None, images: int) -> None:
    """Raises `InputsError` where the caller's `images=` are of another number than the pictures of the inputs."""
    if sizes is not None and len(sizes) != images:
        raise InputsError(f"images= has {len(sizes)} pictures, the inputs {images}")
