"""LLaVA-NeXT-Video: pictures as in LLaVA-NeXT. Its pooling is for videos, which are not supported."""

from typing import ClassVar

from hired.families.llava_next import LlavaNext


class LlavaNextVideo(LlavaNext):
    """Facts: `transformers.models.llava_next_video`; LLaVA-NeXT's image processor and packer."""

    name: ClassVar[str] = "LLaVA-NeXT-Video"
    model_types: ClassVar[tuple[str, ...]] = ("llava_next_video",)
    classes: ClassVar[str] = "LlavaNextVideoForConditionalGeneration (images only)"
    verified: ClassVar[str] = "random tiny models; real weights not tried"
