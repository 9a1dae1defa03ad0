"""Asks LLaVA-NeXT-7B about a picture at a budget, in 4 bits, placed by `device_map="auto"`.

    pip install ".[multi-gpu]" bitsandbytes    # in a checkout of this repository
    python examples/llava_next_7b.py receipt.png "What is the total?" --budget 0.2

In 4 bits the weights take about 5 GB of GPU memory, in float16 (`--bits 16`) about 15 GB. Needs a CUDA GPU and
downloads the checkpoint. Written for the real checkpoints, not run where this library is tested.
"""

import argparse
import time

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor, BitsAndBytesConfig, TextStreamer

import hired
from hired import images

MODELS = {
    "vicuna": "llava-hf/llava-v1.6-vicuna-7b-hf",
    "mistral": "llava-hf/llava-v1.6-mistral-7b-hf",
}


def load(name: str, bits: int):
    """The model and its processor."""
    quantised = None
    if bits < 16:
        quantised = BitsAndBytesConfig(
            load_in_4bit=bits == 4,
            load_in_8bit=bits == 8,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_compute_dtype=torch.float16,
            # HiRED ranks patches by the encoder's attention: the encoder (0.3 B) stays as it was trained.
            llm_int8_skip_modules=["model.vision_tower", "model.multi_modal_projector", "lm_head"],
        )
    model = AutoModelForImageTextToText.from_pretrained(
        name, dtype=torch.float16, device_map="auto", quantization_config=quantised, trust_remote_code=False
    )
    return model.eval(), AutoProcessor.from_pretrained(name, trust_remote_code=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", help="a path, - or a URL")
    parser.add_argument("question")
    parser.add_argument("--model", default="vicuna", help="vicuna, mistral, or a hub id of a LLaVA-NeXT checkpoint")
    parser.add_argument("--bits", type=int, choices=(4, 8, 16), default=4)
    parser.add_argument("--budget", type=float, default=0.2, help="share of the visual tokens, or tokens above 1")
    parser.add_argument("--alpha", type=float, default=0.5)
    parser.add_argument("--max-new-tokens", type=int, default=128)
    args = parser.parse_args()

    picture = images.load(args.image)
    model, processor = load(MODELS.get(args.model, args.model), args.bits)
    content = [{"type": "image"}, {"type": "text", "text": args.question}]
    prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    inputs = processor(text=prompt, images=picture, return_tensors="pt").to(model.device, torch.float16)

    torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    with torch.inference_mode():
        reduced = hired.reduce(model, inputs, budget=args.budget, alpha=args.alpha)
        model.generate(
            **reduced,
            max_new_tokens=args.max_new_tokens,
            do_sample=False,
            streamer=TextStreamer(processor.tokenizer, skip_prompt=True, skip_special_tokens=True),
        )
    torch.cuda.synchronize()
    chosen = reduced.selection[0]
    peak = max(torch.cuda.max_memory_allocated(i) for i in range(torch.cuda.device_count()))
    print(f"{chosen.tokens_full:,} -> {chosen.tokens_kept:,} visual tokens, {chosen.per_partition} of each partition")
    print(f"{time.perf_counter() - start:.1f} s, peak {peak / 2**30:.1f} GiB on the fullest GPU")


if __name__ == "__main__":
    main()
