"""SmolVLM: as Idefics3, with patches merged 3 x 3, and a strip of each tile that no patch covers."""

from typing import Any

from transformers import (
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
    SmolVLMImageProcessorPil,
)

from tests.support.cases.idefics3 import ENCODER, TAGS, TaggedByHand
from tests.support.tiny import IMAGE_ID, VOCABULARY, Case, seeded, sharpen, text, tokenizer

SIDE, PATCH, FACTOR = 38, 4, 3


def smolvlm() -> Any:
    config = SmolVLMConfig(
        vision_config={**ENCODER, "image_size": SIDE, "patch_size": PATCH},
        text_config=text(vocab_size=VOCABULARY).to_dict(),
        image_token_id=IMAGE_ID,
        scale_factor=FACTOR,
        tie_word_embeddings=False,
    )
    model = seeded(lambda: SmolVLMForConditionalGeneration(config))
    sharpen(model.model.vision_model)
    return model


def smolvlm_processor(padding_side: str = "left") -> Any:
    from transformers import SmolVLMProcessor, SmolVLMVideoProcessor
    from transformers.models.smolvlm import processing_smolvlm

    # Spells out how many frames a video has; the processor does not start without the package, not for pictures either.
    processing_smolvlm.num2words = processing_smolvlm.num2words or str
    return SmolVLMProcessor(
        SmolVLMImageProcessorPil(size={"longest_edge": 2 * SIDE}, max_image_size={"longest_edge": SIDE}),
        # The tokenizers of the checkpoints make one token of two line breaks.
        tokenizer(padding_side, (*TAGS, "<video>", "\n\n")),
        SmolVLMVideoProcessor(),
        image_seq_len=(SIDE // PATCH // FACTOR) ** 2,
    )


CASE = Case(
    "smolvlm",
    smolvlm,
    smolvlm_processor,
    side=SIDE,
    torchvision=True,
    by_prompt=True,
    sizes=((90, 31), (30, 80), (64, 64), (76, 60), (30, 76)),
    by_hand=TaggedByHand(),
)
