"""The model that ships: a LLaVA-NeXT with a CLIP tower, a token a patch."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import (
    CLIPVisionModel,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextProcessor,
    PreTrainedTokenizerFast,
)

from hired.forms import GRIDS, TILE, best_grid, grid_mapping
from training.build import TEMPLATE, language, tokenizer, vision
from training.recipes.base import (
    NEWLINE,
    PATCH,
    ROOT,
    SIDE,
    Recipe,
    View,
    copy_rows,
    load_matching,
    normalise,
    tiles_of,
)

FIRST = ROOT / "training" / "runs" / "first"
"""A copy of the weights that shipped before; see the README."""


class LlavaNext(Recipe):
    """Padded tiles behind the shrunk full image; newlines; the second-to-last layer's output, the CLS token dropped."""

    name = "llava-next"
    weights = ROOT / "src" / "hired" / "tiny" / "weights"
    record = ROOT / "benchmarks" / "tiny-training.json"
    model: ClassVar[Any] = LlavaNextForConditionalGeneration
    tower: ClassVar[Any] = CLIPVisionModel
    merge = np.arange(SIDE * SIDE)[:, None]
    layered = True

    def tokenizer(self) -> PreTrainedTokenizerFast:
        return tokenizer()

    def processor(self) -> LlavaNextProcessor:
        """96-pixel partitions, grids of `GRIDS`, mean and deviation 0.5."""
        from transformers import LlavaNextImageProcessorPil

        images = LlavaNextImageProcessorPil(
            size={"shortest_edge": TILE},
            crop_size={"height": TILE, "width": TILE},
            image_grid_pinpoints=[[r * TILE, c * TILE] for r, c in GRIDS],
            image_mean=[0.5] * 3,
            image_std=[0.5] * 3,
        )
        return LlavaNextProcessor(
            image_processor=images,
            tokenizer=self.tokenizer(),
            patch_size=PATCH,
            vision_feature_select_strategy="default",
            num_additional_image_tokens=1,
            chat_template=TEMPLATE,
        )

    def config(self, tok: PreTrainedTokenizerFast) -> LlavaNextConfig:
        return LlavaNextConfig(
            vision_config={**vision(), "model_type": "clip_vision_model", "projection_dim": 160},
            text_config=language(tok),
            image_token_id=tok.convert_tokens_to_ids("<image>"),
            image_grid_pinpoints=[[r * TILE, c * TILE] for r, c in GRIDS],
            image_seq_length=SIDE**2,
            vision_feature_layer=-2,
            vision_feature_select_strategy="default",
            tie_word_embeddings=False,
            pad_token_id=tok.pad_token_id,
        )

    def cut(self, image: Image.Image) -> np.ndarray:
        rows, columns = grid = best_grid(*image.size)
        _, left, top = grid_mapping(*image.size, grid)
        full_w, full_h = columns * TILE, rows * TILE
        scale_w, scale_h = full_w / image.width, full_h / image.height
        if scale_w < scale_h:
            new = (full_w, min(int(np.ceil(image.height * scale_w)), full_h))
        else:
            new = (min(int(np.ceil(image.width * scale_h)), full_w), full_h)
        canvas = np.zeros((full_h, full_w, 3), np.uint8)
        canvas[top : top + new[1], left : left + new[0]] = image.resize(new, Image.Resampling.BICUBIC)
        small = np.asarray(image.resize((TILE, TILE), Image.Resampling.BICUBIC))
        return np.concatenate([small[None], tiles_of(canvas, rows, columns)])

    def views(self, width: int, height: int) -> list[View]:
        rows, columns = grid = best_grid(width, height)
        fit, left, top = grid_mapping(width, height, grid)
        tiles = [
            View(fit, fit, left - c * TILE, top - r * TILE, tile=True) for r in range(rows) for c in range(columns)
        ]
        return [View(TILE / width, TILE / height, 0.0, 0.0, tile=False), *tiles]

    def picture(self, tok: PreTrainedTokenizerFast, width: int, height: int) -> tuple[list[int], list[int]]:
        spots = places(width, height).tolist()
        return [tok.convert_tokens_to_ids("<image>")] * len(spots), spots

    def patches(self, out: Any) -> Tensor:
        found: Tensor = out.hidden_states[-2][:, 1:]
        return found

    def summaries(self, out: Any) -> list[Tensor]:
        """The CLS token after every layer, and the pooled one."""
        return [*(h[:, 0] for h in out.hidden_states[1:]), out.pooler_output]

    def features(self, tower: nn.Module, pixels: Tensor, block: int = 64) -> Tensor:
        inner: Any = getattr(tower, "vision_model", tower)
        out = []
        for part in pixels.split(block):
            hidden = inner.pre_layrnorm(inner.embeddings(normalise(part)))
            for layer in inner.encoder.layers[:-1]:
                hidden = layer(hidden, attention_mask=None)
            out.append(hidden[:, 1:])
        return torch.cat(out)

    @torch.no_grad()
    def begin(self, module: nn.Module) -> None:
        """Takes the weights of the edition before this one; rows of the tables of tokens by the tokens' names."""
        old: Any = LlavaNextForConditionalGeneration.from_pretrained(FIRST, dtype=torch.float32)
        part: Any = module
        if isinstance(module, CLIPVisionModel):
            load_matching(module, old.model.vision_tower.state_dict())
            return
        new, known = self.tokenizer().get_vocab(), PreTrainedTokenizerFast.from_pretrained(FIRST).get_vocab()
        own, before = part.state_dict(), old.state_dict()
        for name, value in own.items():
            if name.endswith(("embed_tokens.weight", "lm_head.weight")):
                copy_rows(value, before[name], new, known)
            elif "vision_tower" not in name:
                value.copy_(before[name])

    def visual(self, model: Any, patches: Tensor) -> Tensor:
        return torch.cat([model.model.multi_modal_projector(patches).flatten(0, 1), model.model.image_newline[None]])


def places(width: int, height: int) -> np.ndarray:
    """Patch index (partition * 144 + patch) of every visual token of a picture; row ends `NEWLINE`.

    What `pack_image_features` does, with indices in place of features.
    """
    rows, columns = best_grid(width, height)
    full = np.arange(SIDE * SIDE)
    tiles = SIDE * SIDE * (1 + np.arange(rows * columns)).reshape(rows, columns, 1, 1)
    mosaic = (tiles + full.reshape(SIDE, SIDE)).swapaxes(1, 2).reshape(rows * SIDE, columns * SIDE)
    h, w = mosaic.shape
    if width / height > w / h:
        pad = (h - int(round(height * (w / width), 7))) // 2
        mosaic = mosaic[pad : h - pad]
    else:
        pad = (w - int(round(width * (h / height), 7))) // 2
        mosaic = mosaic[:, pad : w - pad]
    ends = np.full((len(mosaic), 1), NEWLINE)
    return np.concatenate([full, np.concatenate([mosaic, ends], 1).ravel()])
