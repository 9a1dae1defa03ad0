"""What a reduced prompt must give, worked out by hand: embed, put the features in, drop, position, run the LLM.

Nothing of `hired.reduction` is used. A row is built on its own, without padding, from the untouched inputs and the rows
that `.selection` says were kept.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass
class Row:
    """One prompt after dropping, as the LLM sees it.

    Attributes:
        ids: (length,) token ids.
        embeds: (length, hidden).
        positions: (length,).
        labels: (length,) or None.
    """

    ids: Tensor
    embeds: Tensor
    positions: Tensor
    labels: Tensor | None


@torch.no_grad()
def rows(model: Any, inputs: Any, kept: list[list[int]], positions: str) -> list[Row]:
    """The rows of the batch. `kept`: for every image the kept rows of its untouched features."""
    ids = inputs["input_ids"]
    mask = inputs.get("attention_mask")
    mask = torch.ones_like(ids) if mask is None else mask
    given = {key: inputs[key] for key in ("pixel_values", "image_sizes", "batch_num_images") if key in inputs}
    images = list(model.get_image_features(**given, return_dict=True).pooler_output) if given else []
    image_id, made, image = model.config.image_token_id, [], 0
    for row in range(ids.shape[0]):
        embeds, stay, place = [], [], 0
        tokens = ids[row][mask[row].bool()].tolist()
        while place < len(tokens):
            if tokens[place] != image_id:
                embeds.append(model.get_input_embeddings()(torch.tensor([tokens[place]]))[0])
                stay.append(place)
                place += 1
                continue
            features = images[image]
            assert tokens[place : place + len(features)] == [image_id] * len(features)
            for index in kept[image]:
                embeds.append(features[index])
                stay.append(place + index)
            place += len(features)
            image += 1
        labels = inputs["labels"][row][mask[row].bool()][stay] if "labels" in inputs else None
        where = torch.tensor(stay) if positions == "original" else torch.arange(len(stay))
        made.append(Row(torch.tensor(tokens)[stay], torch.stack(embeds), where, labels))
    assert image == len(images)
    return made


@torch.no_grad()
def logits(model: Any, row: Row) -> Tensor:
    """(length, vocabulary) logits of one row."""
    # With a mask, because transformers takes gaps in the positions of unmasked inputs for packed sequences.
    hidden = model.model.language_model(
        inputs_embeds=row.embeds[None],
        position_ids=row.positions[None],
        attention_mask=torch.ones(1, len(row.ids), dtype=torch.int64),
        use_cache=False,
    ).last_hidden_state
    return model.lm_head(hidden)[0]


def loss(model: Any, all_rows: list[Row]) -> float:
    """Mean cross-entropy of the next token over all labelled places of the batch."""
    total, count = 0.0, 0
    for row in all_rows:
        assert row.labels is not None
        predicted = logits(model, row).float().log_softmax(-1)
        for place in range(len(row.labels) - 1):
            if row.labels[place + 1] != -100:
                total -= float(predicted[place, row.labels[place + 1]])
                count += 1
    return total / count


@torch.no_grad()
def decode(model: Any, row: Row, new_tokens: int, stop: int | None = 2) -> list[int]:
    """Greedy continuation, the whole sequence run again for every token, without a cache."""
    found: list[int] = []
    grown = Row(row.ids, row.embeds, row.positions, None)
    for _ in range(new_tokens):
        best = int(logits(model, grown)[-1].argmax())
        found.append(best)
        if best == stop:
            break
        embed = model.get_input_embeddings()(torch.tensor([best]))
        grown = Row(
            torch.cat((grown.ids, torch.tensor([best]))),
            torch.cat((grown.embeds, embed)),
            torch.cat((grown.positions, grown.positions[-1:] + 1)),
            None,
        )
    return found
