"""A model for the tests and the docs: an Aya Vision, whose SigLIP tower has no CLS token, a token for 2 x 2 patches.

It starts from the layers of the model that ships, which saves most of the time; everything is then trained.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import (
    AyaVisionConfig,
    AyaVisionForConditionalGeneration,
    AyaVisionProcessor,
    PreTrainedTokenizerFast,
    SiglipVisionModel,
)
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import (
    GotOcr2ImageProcessorPil,
    get_optimal_tiled_canvas,
)

from hired.forms import GRIDS, TILE, page
from hired.tiny import load_tiny
from training.build import TEMPLATE, language, tokenizer, vision
from training.recipes.base import PATCH, ROOT, SIDE, TEXT, Recipe, View, copy_rows, normalise, tiles_of

FACTOR = 2
MOST = max(r * c for r, c in GRIDS)
PLACEHOLDER = "<|IMG_PATCH|>"
TAGS = (
    "<|START_OF_IMG|>",
    "<|END_OF_IMG|>",
    PLACEHOLDER,
    "TILE_GLOBAL",
    *(f"TILE_{i}" for i in range(1, MOST + 1)),
)
CELLS = (SIDE // FACTOR) ** 2


class AyaVision(Recipe):
    """Squeezed tiles before the shrunk full image, tags between them; pixel shuffle; the last layer's output.

    In training the tower has SigLIP's own pooling head, which stands in for the CLS token where the losses ask about
    the whole partition. Aya Vision does not use it, and it is not saved.
    """

    name = "aya-vision"
    weights = ROOT / "tests" / "data" / "tiny_aya"
    record = ROOT / "benchmarks" / "tiny-aya-training.json"
    model: ClassVar[Any] = AyaVisionForConditionalGeneration
    tower: ClassVar[Any] = SiglipVisionModel
    merge = (
        np.arange(SIDE * SIDE)
        .reshape(SIDE // FACTOR, FACTOR, SIDE // FACTOR, FACTOR)
        .swapaxes(1, 2)
        .reshape(CELLS, FACTOR**2)
    )
    layered = False

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """That of the first edition of the model that ships, and the tags behind it."""
        return tokenizer(TAGS, scenes=False)

    def processor(self) -> AyaVisionProcessor:
        """96-pixel partitions, at most four tiles, mean and deviation 0.5."""
        images = GotOcr2ImageProcessorPil(
            size={"height": TILE, "width": TILE},
            crop_to_patches=True,
            min_patches=1,
            max_patches=MOST,
            image_mean=[0.5] * 3,
            image_std=[0.5] * 3,
        )
        return AyaVisionProcessor(
            images, self.tokenizer(), patch_size=PATCH, img_size=TILE, downsample_factor=FACTOR, chat_template=TEMPLATE
        )

    def config(self, tok: PreTrainedTokenizerFast) -> AyaVisionConfig:
        return AyaVisionConfig(
            vision_config={**vision(), "model_type": "siglip_vision_model", "vision_use_head": False},
            text_config=language(tok),
            image_token_index=tok.convert_tokens_to_ids(PLACEHOLDER),
            vision_feature_layer=-1,
            vision_feature_select_strategy="full",
            downsample_factor=FACTOR,
            alignment_intermediate_size=1024,
            tie_word_embeddings=False,
        )

    def cut(self, image: Image.Image) -> np.ndarray:
        columns, rows = _canvas(*image.size)
        canvas = np.asarray(image.resize((columns * TILE, rows * TILE), Image.Resampling.BICUBIC))
        tiles = tiles_of(canvas, rows, columns)
        if rows * columns == 1:
            return tiles
        small = np.asarray(image.resize((TILE, TILE), Image.Resampling.BICUBIC))
        return np.concatenate([tiles, small[None]])

    def views(self, width: int, height: int) -> list[View]:
        columns, rows = _canvas(width, height)
        sx, sy = columns * TILE / width, rows * TILE / height
        tiles = [View(sx, sy, -c * TILE, -r * TILE, tile=True) for r in range(rows) for c in range(columns)]
        return tiles if len(tiles) == 1 else [*tiles, View(TILE / width, TILE / height, 0.0, 0.0, tile=False)]

    def picture(self, tok: PreTrainedTokenizerFast, width: int, height: int) -> tuple[list[int], list[int]]:
        columns, rows = _canvas(width, height)
        tags = [*(f"TILE_{i + 1}" for i in range(rows * columns) if rows * columns > 1), "TILE_GLOBAL"]
        start, end, patch = (tok.convert_tokens_to_ids(name) for name in TAGS[:3])
        ids, place = [start], [TEXT]
        for index, tag in enumerate(tags):
            ids += [tok.convert_tokens_to_ids(tag), *[patch] * CELLS]
            place += [TEXT, *range(index * CELLS, (index + 1) * CELLS)]
        return [*ids, end], [*place, TEXT]

    def patches(self, out: Any) -> Tensor:
        found: Tensor = out.hidden_states[-1]
        return found

    def summaries(self, out: Any) -> list[Tensor]:
        return [out.pooler_output]

    def features(self, tower: nn.Module, pixels: Tensor, block: int = 64) -> Tensor:
        inner: Any = tower
        out = []
        for part in pixels.split(block):
            hidden = inner.embeddings(normalise(part))
            for layer in inner.encoder.layers:
                hidden = layer(hidden, attention_mask=None)
            out.append(hidden)
        return torch.cat(out)

    def visual(self, model: Any, patches: Tensor) -> Tensor:
        shown = model.model.multi_modal_projector(patches).flatten(0, -2)
        return torch.cat([shown, torch.zeros_like(shown[:1])])

    @torch.no_grad()
    def begin(self, module: nn.Module) -> None:
        """Takes a tower's layers, or the language model, from the model that ships; a projector starts from nothing."""
        shipped: Any = load_tiny()[0]
        part: Any = module
        if isinstance(module, SiglipVisionModel):
            _tower(part, shipped.model.vision_tower)
            return
        llm = part.model.language_model
        llm.layers.load_state_dict(shipped.model.language_model.layers.state_dict())
        llm.norm.load_state_dict(shipped.model.language_model.norm.state_dict())
        new, old = self.tokenizer().get_vocab(), tokenizer().get_vocab()
        copy_rows(llm.embed_tokens.weight, shipped.model.language_model.embed_tokens.weight, new, old)
        copy_rows(part.lm_head.weight, shipped.lm_head.weight, new, old)


def _canvas(width: int, height: int) -> tuple[int, int]:
    """(columns, rows) of the tiles of a picture."""
    columns, rows = get_optimal_tiled_canvas((height, width), (TILE, TILE), 1, MOST)
    return columns, rows


def _tower(tower: Any, shipped: Any) -> None:
    """The layers of the shipped CLIP tower; its embeddings with the norm behind them, which SigLIP lacks, folded in."""
    tower.encoder.load_state_dict(shipped.encoder.state_dict())
    pages = torch.from_numpy(np.concatenate([AyaVision().cut(page(seed).image) for seed in range(8)]))
    before = shipped.embeddings(normalise(pages))[:, 1:]
    norm = shipped.pre_layrnorm
    scale = norm.weight / before.std(-1).mean()
    old, new = shipped.embeddings, tower.embeddings
    kernel = old.patch_embedding.weight
    new.patch_embedding.weight.copy_((kernel - kernel.mean(0)) * scale[:, None, None, None])
    new.patch_embedding.bias.copy_(norm.bias)
    place = old.position_embedding.weight[1:]
    new.position_embedding.weight.copy_((place - place.mean(1, keepdim=True)) * scale)
