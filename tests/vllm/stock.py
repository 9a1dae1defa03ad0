"""Prints the answers of vLLM without the plugin: `VLLM_PLUGINS= python -m tests.vllm.stock NAME FOLDER`."""

import json
import sys
from pathlib import Path

from tests.vllm.environment import prepare
from tests.vllm.support import Case, greedy, model_of, unpruned_requests


def main() -> None:
    prepare()
    from vllm import LLM

    case = Case(sys.argv[1], Path(sys.argv[2]), None)
    llm = LLM(str(case.folder), dtype="float32", enforce_eager=True, max_model_len=2048, block_size=32)
    outputs = llm.generate(unpruned_requests(case), greedy(), use_tqdm=False)
    answers = [(output.prompt_token_ids, list(output.outputs[0].token_ids)) for output in outputs]
    print(json.dumps([type(model_of(llm)).__module__, answers]))


if __name__ == "__main__":
    main()
