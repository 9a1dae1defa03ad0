"""Training sees what the model that ships will see: the same partitions, tokens and logits."""

import numpy as np
import pytest
import torch
from transformers.utils import is_torchvision_available

from hired import forms
from hired.tiny import load_tiny

pytest.importorskip("matplotlib")

from training.data import partitions
from training.encoder import normalise
from training.model import answer, features
from training.sequences import Writer, collate


@pytest.fixture(scope="module")
def tiny():
    return load_tiny()


@pytest.mark.skipif(is_torchvision_available(), reason="with torchvision the processor resizes in another way")
@pytest.mark.parametrize("seed", range(12))
def test_partitions_are_those_of_the_processor(tiny, seed: int) -> None:
    page = forms.page(seed)
    wanted = tiny[1].image_processor(page.image, return_tensors="pt")["pixel_values"][0]
    pixels = torch.from_numpy(np.stack([part.pixels for part in partitions(page)]))
    assert pixels.shape[0] == wanted.shape[0]
    assert (normalise(pixels) - wanted).abs().max() < 2.5 / 255  # the processor rounds to 8 bits once more


@pytest.mark.parametrize("seeds", [[3], [5, 8]], ids=["one picture", "two pictures"])
def test_logits_are_those_of_the_model(tiny, seeds: list[int]) -> None:
    model, processor = tiny
    pages = [forms.page(seed) for seed in seeds]
    asked = [(pages[0].question(0), pages[0].fields[0].value)]
    writer = Writer(processor.tokenizer)
    batch = {key: torch.from_numpy(value) for key, value in collate([writer.write(pages, asked)], 0).items()}
    patches = features(model.model.vision_tower, batch["pixels"])
    with torch.no_grad():
        ours = answer(model, batch, patches, 0.0)[0]
        pixels = normalise(batch["pixels"])
        counts = [len(partitions(page)) for page in pages]
        padded = [torch.nn.functional.pad(part, [0] * 7 + [max(counts) - len(part)]) for part in pixels.split(counts)]
        theirs = model(
            input_ids=batch["ids"],
            pixel_values=torch.stack(padded),
            image_sizes=torch.tensor([(page.image.height, page.image.width) for page in pages]),
        ).logits
    assert torch.allclose(ours[0], theirs[0, batch["tail"][0]], atol=1e-4)


def test_seeds_of_training_measuring_and_demonstration_are_apart() -> None:
    ranges = (forms.TRAIN_SEEDS, forms.EVAL_SEEDS, forms.DEMO_SEEDS)
    for i, one in enumerate(ranges):
        for other in ranges[i + 1 :]:
            assert max(one.start, other.start) >= min(one.stop, other.stop)


def test_fonts_of_the_second_set_are_not_those_of_training() -> None:
    assert not set(forms._FONT_FILES["train"]) & set(forms._FONT_FILES["unseen"])
