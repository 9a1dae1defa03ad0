"""Training sees what the model that ships will see: the same partitions, tokens and logits."""

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoProcessor
from transformers.utils import is_torchvision_available

from hired import forms

pytest.importorskip("matplotlib")

from training.answer import answer
from training.data import Partition, partitions, token_labels
from training.recipes import RECIPES, Recipe
from training.recipes.base import normalise
from training.sequences import Writer, collate

each_recipe = pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)


@cache
def trained(recipe: Recipe) -> Any:
    return recipe.model.from_pretrained(recipe.weights, dtype="float32").eval()


@each_recipe
@pytest.mark.parametrize("seed", range(12))
def test_partitions_are_those_of_the_processor(recipe: Recipe, seed: int) -> None:
    if recipe.name == "llava-next" and is_torchvision_available():
        pytest.skip("with torchvision the processor resizes in another way")
    page = forms.page(seed)
    wanted = recipe.processor().image_processor(page.image, return_tensors="pt")["pixel_values"]
    pixels = torch.from_numpy(np.stack([part.pixels for part in partitions(page, recipe)]))
    # The processor rounds to 8 bits once more.
    assert (normalise(pixels) - wanted.reshape(-1, *wanted.shape[-3:])).abs().max() < 2.5 / 255


@each_recipe
def test_prompts_are_those_of_the_processor(recipe: Recipe) -> None:
    processor = AutoProcessor.from_pretrained(recipe.weights)
    pages = [forms.page(seed) for seed in (3, 5)]
    parts = [{"type": "image"}, {"type": "image"}, {"type": "text", "text": "What is TOTAL?"}]
    chat = [{"role": "user", "content": parts}]
    text = processor.apply_chat_template(chat, add_generation_prompt=True)
    given = processor(text=text, images=[page.image for page in pages], add_special_tokens=False)["input_ids"][0]
    ours = Writer(recipe).write(pages, [("What is TOTAL?", "7")])
    assert ours.ids[: len(given)] == list(given)


@each_recipe
@pytest.mark.parametrize("seeds", [[3], [5, 8]], ids=["one picture", "two pictures"])
def test_logits_are_those_of_the_model(recipe: Recipe, seeds: list[int]) -> None:
    model = trained(recipe)
    pages = [forms.page(seed) for seed in seeds]
    asked = [(pages[0].question(0), pages[0].fields[0].value)]
    made = collate([Writer(recipe).write(pages, asked)], recipe, 0)
    batch = {key: torch.from_numpy(value) for key, value in made.items()}
    with torch.no_grad():
        patches = recipe.features(model.model.vision_tower, batch["pixels"])
        ours = answer(model, batch, recipe.visual(model, patches), 0.0)[0]
        given = recipe.processor().image_processor([page.image for page in pages], return_tensors="pt")
        given["pixel_values"] = normalise(batch["pixels"])
        if "image_sizes" in given:  # partitions by picture
            counts = [len(partitions(page, recipe)) for page in pages]
            split = given["pixel_values"].split(counts)
            given["pixel_values"] = torch.nn.utils.rnn.pad_sequence(split, batch_first=True)
        given.pop("num_patches", None)
        theirs = model(input_ids=batch["ids"], **given).logits
    assert torch.allclose(ours[0], theirs[0, batch["tail"][0]], atol=1e-4)


def test_a_token_of_several_patches_has_the_line_of_most_of_them() -> None:
    key = np.full((12, 12), -1)
    slots = np.zeros((4, 12, 12), np.int64)
    key[0, :2], key[1, 0] = 5, 7  # the first token: two patches of line 5, one of line 7
    slots[0, 0, 1], slots[1, 1, 0] = 3, 9
    part = Partition(np.zeros((96, 96, 3), np.uint8), key, slots, 1.0)
    line, digits = token_labels(part, RECIPES["aya-vision"].merge)
    assert (line[0], *digits[:, 0]) == (5, 3, 0, 0, 0)
    assert set(line[1:]) == {-1}
    assert not digits[:, 1:].any()


def test_seeds_of_training_measuring_and_demonstration_are_apart() -> None:
    ranges = (forms.TRAIN_SEEDS, forms.EVAL_SEEDS, forms.DEMO_SEEDS)
    for i, one in enumerate(ranges):
        for other in ranges[i + 1 :]:
            assert max(one.start, other.start) >= min(one.stop, other.stop)


def test_fonts_of_the_second_set_are_not_those_of_training() -> None:
    assert not set(forms._FONT_FILES["train"]) & set(forms._FONT_FILES["unseen"])
