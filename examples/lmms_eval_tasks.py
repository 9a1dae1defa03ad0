"""The paper's eight benchmarks through lmms-eval, with `hired.enable` inside its `llava_hf` model.

    pip install lmms_eval ".[multi-gpu]"    # in a checkout of this repository
    python examples/lmms_eval_tasks.py --budget 0.2 --limit 100

Written against the source of lmms-eval 0.7.3 and NOT run: it needs a GPU, the checkpoint and the data sets.
`llava_hf` catches every exception of `generate` and scores an empty answer: look for "in generating" in its log.
One process; for several GPUs give each a share of the tasks.
"""

import argparse
import json
from pathlib import Path

from lmms_eval import evaluator
from lmms_eval.models import get_model
from lmms_eval.tasks import TaskManager
from lmms_eval.utils import make_table

import hired

TASKS = ("vqav2_val", "scienceqa_img", "textvqa_val", "docvqa_val", "ocrbench", "mme", "pope", "chartqa")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="llava-hf/llava-v1.6-vicuna-7b-hf")
    parser.add_argument("--tasks", nargs="+", default=TASKS)
    parser.add_argument("--budget", type=float, default=0.2, help="1 leaves the model as it is")
    parser.add_argument("--variant", choices=("paper", "published"), default="paper")
    parser.add_argument("--limit", type=int, help="samples a task, for a first try")
    parser.add_argument("--dtype", default="float16")
    parser.add_argument("--out", type=Path, default=Path("out/lmms_eval"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)

    harness = get_model("llava_hf").create_from_arg_string(
        f"pretrained={args.model},dtype={args.dtype},device_map=auto", {"batch_size": 1, "device": "cuda"}
    )
    # What lmms-eval's own command line would hand on; tasks write their submission files to output_path.
    command_line = argparse.Namespace(process_with_media=False, output_path=str(args.out))
    with hired.enable(harness.model, budget=args.budget, variant=args.variant):
        results = evaluator.simple_evaluate(
            model=harness,
            tasks=list(args.tasks),
            batch_size=1,
            limit=args.limit,
            log_samples=False,
            task_manager=TaskManager("INFO", model_name="llava_hf"),
            cli_args=command_line,
        )
    print(make_table(results))
    file = args.out / f"results-{args.budget:g}-{args.variant}.json"
    kept = {"budget": args.budget, "variant": args.variant, "model": args.model, "results": results["results"]}
    file.write_text(json.dumps(kept, indent=2, default=str) + "\n")
    print(f"Wrote {file}")


if __name__ == "__main__":
    main()
