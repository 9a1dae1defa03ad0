"""Checkpoints that transformers saved, in the form that vLLM reads."""

import shutil
from pathlib import Path

_TOWER = "vision_tower."
_NESTED = "vision_tower.vision_model."


def export(source: str | Path, target: str | Path) -> Path:
    """Copies a LLaVA-like checkpoint that a recent transformers saved, with its encoder's weights named for vLLM.

    transformers saves `vision_tower.encoder...`; vLLM reads `vision_tower.vision_model.encoder...`, as the
    checkpoints on the hub have it.

    Args:
        source: the folder `save_pretrained` wrote, weights in one safetensors file.
        target: the folder to write; it is made, and what is there under the same names is replaced.

    Returns:
        `target`.
    """
    from safetensors.torch import load_file, save_file

    source, target = Path(source), Path(target)
    target.mkdir(parents=True, exist_ok=True)
    for file in source.iterdir():
        if file.is_file() and file.suffix != ".safetensors":
            shutil.copyfile(file, target / file.name)
    weights = load_file(source / "model.safetensors")
    renamed = {
        _NESTED + name.removeprefix(_TOWER)
        if name.startswith(_TOWER) and not name.startswith(_NESTED)
        else name: tensor
        for name, tensor in weights.items()
    }
    save_file(renamed, target / "model.safetensors", metadata={"format": "pt"})
    return target
