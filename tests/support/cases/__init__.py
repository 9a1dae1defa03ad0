"""One tiny model a family, with its real processor, one line each."""

from tests.support.cases import (
    aya_vision,
    cohere2_vision,
    gemma3,
    idefics3,
    internvl,
    lfm2_vl,
    llama4,
    llava,
    llava_next,
    llava_next_video,
    llava_onevision,
    mistral3,
    qwen2_5_vl,
    qwen2_vl,
    qwen3_vl,
    smolvlm,
    vipllava,
)
from tests.support.tiny import Case

MODULES = (
    llava_next,
    llava,
    llava_onevision,
    internvl,
    aya_vision,
    cohere2_vision,
    qwen2_vl,
    qwen2_5_vl,
    qwen3_vl,
    idefics3,
    smolvlm,
    gemma3,
    mistral3,
    llama4,
    lfm2_vl,
    vipllava,
    llava_next_video,
)

CASES: dict[str, Case] = {module.CASE.name: module.CASE for module in MODULES}
