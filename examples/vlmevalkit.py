"""Benchmarks of VLMEvalKit with `hired.enable` inside one of its models.

    git clone https://github.com/open-compass/VLMEvalKit && pip install -e VLMEvalKit
    python examples/vlmevalkit.py VLMEvalKit/run.py llava_next_vicuna_7b 0.2 --data TextVQA_VAL

The kit takes no plug-ins: a model is an entry of its table `supported_VLM`, and its program is `run.py` in its
repository. This adds an entry, NAME-hired-BUDGET, which builds the model NAME and enables it, and runs `run.py` with
the options behind the budget. Written from the kit's source and tested with a stub of it; not run with the kit itself.

Entries that work are those whose object has a transformers model of a supported family as `.model` and asks it through
`.model.generate`, such as `llava_next_vicuna_7b`; of other models `hired.HiredError` tells.
"""

import argparse
import atexit
import runpy
import sys
from functools import partial
from typing import Any

import hired


def build(make: Any, budget: float, **settings: Any) -> Any:
    """One of the kit's models, enabled; `make` is its entry in `supported_VLM`, `settings` are the kit's."""
    model = make(**settings)
    handle = hired.enable(model.model, budget)
    atexit.register(lambda: print(f"hired: {handle.counts}"))
    return model


def register(name: str, budget: float) -> str:
    """Adds an entry for a model under a budget to the kit's table; its name."""
    from vlmeval.config import supported_VLM

    if name not in supported_VLM:
        raise hired.HiredError(f"VLMEvalKit has no model {name!r}: vlmutil mlist all")
    ours = f"{name}-hired-{budget:g}"
    supported_VLM[ours] = partial(build, supported_VLM[name], budget)
    return ours


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", help="run.py of VLMEvalKit")
    parser.add_argument("model", help="a name of VLMEvalKit's")
    parser.add_argument("budget", type=float, help="a share (0.2), or tokens a picture (576); 1 changes nothing")
    asked, options = parser.parse_known_args()
    sys.argv = [asked.program, "--model", register(asked.model, asked.budget), *options]
    runpy.run_path(asked.program, run_name="__main__")


if __name__ == "__main__":
    main()
