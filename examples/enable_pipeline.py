"""`pipeline("image-text-to-text")` with `hired.enable`: the pipeline's own code is not touched.

    python examples/enable_pipeline.py receipt.png "What is TOTAL?"
    python examples/enable_pipeline.py photo.jpg "What is on the table?" --model llava-hf/llava-1.5-7b-hf

Without --model it uses the small model that ships with the package.
"""

import argparse

from transformers import pipeline

import hired
from hired import images
from hired.tiny import WEIGHTS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", help="a path, - or a URL")
    parser.add_argument("question")
    parser.add_argument("--model", default=str(WEIGHTS), help="a directory or a hub id")
    parser.add_argument("--budget", type=float, default=0.2)
    args = parser.parse_args()

    pipe = pipeline("image-text-to-text", model=args.model)
    content = [{"type": "image", "image": images.load(args.image)}, {"type": "text", "text": args.question}]
    messages = [{"role": "user", "content": content}]

    def ask() -> str:
        return pipe(text=messages, max_new_tokens=32, return_full_text=False)[0]["generated_text"].strip()

    print("all tokens: ", ask())
    with hired.enable(pipe.model, budget=args.budget):
        print(f"budget {args.budget:g}: ", ask())


if __name__ == "__main__":
    main()
