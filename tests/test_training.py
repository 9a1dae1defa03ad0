"""Training sees what the model that ships will see: the same partitions, tokens and logits."""

import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoProcessor
from transformers.utils import is_torchvision_available

from hired import forms
from hired.forms.typefaces import FILES

pytest.importorskip("matplotlib")

from training import fonts
from training.answer import answer, grounding
from training.build import VARIANTS
from training.data import IGNORE, UNREAD, WORDS, Partition, partitions, token_labels
from training.recipes import RECIPES, Recipe
from training.recipes.base import normalise
from training.sequences import LOOK, TITLE, Asked, Writer, asked_of, collate

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
    ours = Writer(recipe).write(pages, [Asked("What is TOTAL?", "7")])
    assert ours.ids[: len(given)] == list(given)


@each_recipe
@pytest.mark.parametrize("seeds", [[3], [5, 8]], ids=["one picture", "two pictures"])
def test_logits_are_those_of_the_model(recipe: Recipe, seeds: list[int]) -> None:
    model = trained(recipe)
    pages = [forms.page(seed) for seed in seeds]
    asked = [Asked(pages[0].question(0), pages[0].fields[0].value)]
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
    assert not set(FILES["train"]) & set(FILES["unseen"])
    drawn = [Path(name).stem.lower() for name in fonts.style().files]
    assert not [name for name in drawn if re.search(r"stix|cmss|cmr|cmu|lmodern|lmsans|lmroman|aileron", name)]


def labelled(task: forms.Task, seed: int) -> tuple[forms.Page, list[Partition]]:
    page = forms.page(seed, task=task)
    return page, partitions(page, RECIPES["llava-next"], task == "layout")


def test_small_print_has_digits_in_tiles_and_large_print_in_the_full_image() -> None:
    lines, legible = 0, 0
    for seed in range(30):
        page, (full, *tiles) = labelled("large", seed)
        for number, field in enumerate(page.fields):
            for slot, digit in enumerate(field.value):
                assert (full.slots[slot][full.owner == number] == int(digit) + 1).any()
                assert not any((tile.slots[slot][tile.owner == number] > 0).any() for tile in tiles)
        page, (full, *tiles) = labelled("forms", seed)
        if len(tiles) > 1:
            for number in range(len(page.fields)):
                lines += 1
                legible += bool((full.key[full.owner == number] != UNREAD).all())
                assert any((tile.slots[0][tile.owner == number] > 0).any() for tile in tiles)
    assert legible < 0.15 * lines


def test_shapes_in_pieces_have_a_colour_but_no_name() -> None:
    seen = 0
    for seed in range(30):
        page, (full, *tiles) = labelled("large", seed)
        for number, thing in enumerate(page.things, start=len(page.fields)):
            assert set(full.shape[full.owner == number]) == {forms.SHAPES.index(thing.name) + 1}
            for tile in tiles:
                there = tile.owner == number
                assert set(tile.shape[there]) <= {IGNORE}
                assert (tile.colour[there] > 0).all()
                seen += there.any()
    assert seen > 20


def test_the_full_image_tells_what_lies_beside() -> None:
    names = (*forms.SHAPES, *WORDS)
    ways = {"left of": 0, "right of": 1, "above": 2, "under": 3}
    told = 0
    for seed in range(60):
        page, (full, *_) = labelled("layout", seed)
        for text, truth, boxes in page.questions:
            m = re.fullmatch(r"What is (left of|right of|above|under) the \w+\?", text)
            if m:
                labels = set(full.beside[ways[m[1]]][full.owner == page.ink.index(boxes[0])])
                assert labels <= {names.index(truth) + 1, IGNORE}
                told += IGNORE not in labels
    assert told > 40


@pytest.mark.parametrize("task", forms.TASKS)
def test_questions_know_what_they_are_about(task: forms.Task) -> None:
    for seed in range(20):
        page = forms.page(seed, task=task)
        for question in page.questions:
            asked = asked_of(question, [page])
            assert asked.digits == any(question.answer == f.value for f in page.fields)
            if "title" in question.text:
                assert asked.name == TITLE
            if question.text.startswith("What shape"):
                assert list(forms.COLOURS)[asked.hue] == page.things[asked.look - len(page.fields)].colour
            if not question.text.startswith("How many"):
                assert page.ink[asked.look] == question.boxes[0]


def test_every_question_can_be_put_in_other_words() -> None:
    texts = {q.text for task in ("shapes", "layout") for s in range(40) for q in forms.page(s, task=task).questions}
    for text in texts:
        assert any(re.fullmatch(pattern, text) for pattern in VARIANTS), text


def test_attention_that_lies_on_what_is_asked_costs_nothing() -> None:
    recipe = RECIPES["llava-next"]
    page = next(p for p in (forms.page(seed, task="mixed") for seed in range(50)) if p.fields and p.things)
    asked = [asked_of(q, [page]) for q in page.questions if not q.text.startswith("How many")]
    made = collate([Writer(recipe).write([page], asked)], recipe, 0)
    batch = {key: torch.from_numpy(value) for key, value in made.items()}
    owner = batch["owner"].flatten()[batch["place"][0].clamp(min=0)]
    slots = batch["slots"].transpose(1, 2).flatten(0, 1)[batch["place"][0].clamp(min=0)]
    weights = torch.zeros(1, 6, batch["tail"].shape[1], batch["ids"].shape[1])
    for t, (look, digit) in enumerate(zip(batch["look"][0], batch["digit"][0], strict=True)):
        right = (owner == look) & (batch["place"][0] >= 0)
        if batch["full"][0, t] > 0:
            right &= ~batch["tile"].flatten()[batch["place"][0].clamp(min=0)]
        if digit >= 0:
            right &= slots[:, digit] > 0
        if look >= 0 and right.any():
            weights[0, LOOK if digit < 0 else digit, t] = right / right.sum()
    assert grounding(weights, batch) < 1e-3
    assert grounding(1 - weights.clamp(max=1).ceil(), batch) > 5
