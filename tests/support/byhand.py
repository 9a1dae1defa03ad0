"""What a reduced prompt must give, worked out by hand: embed, put the features in, drop, position, run the LLM.

Nothing of `hired` is used. A row is built on its own, without padding, from the untouched inputs and the rows
that `.selection` says were kept.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass
class Row:
    """One prompt after dropping, as the LLM sees it.

    Attributes:
        ids: (length,) token ids.
        embeds: (length, hidden).
        positions: (length,), or (axes, length).
        labels: (length,) or None.
        features: (visual tokens, ...) what stands at the places of visual tokens, as `ByHand.features` gave it.
    """

    ids: Tensor
    embeds: Tensor
    positions: Tensor
    labels: Tensor | None
    features: Tensor = field(default_factory=lambda: torch.empty(0))


class ByHand:
    """How one family is worked out by hand; the defaults fit a language model with one position a token.

    Attributes:
        keys: the arguments of `get_image_features` among the inputs.
    """

    keys: tuple[str, ...] = ("pixel_values", "image_sizes", "batch_num_images")

    def token(self, model: Any) -> int:
        """Id of the placeholder."""
        return int(model.config.image_token_id)

    def features(self, model: Any, inputs: Any) -> list[Tensor]:
        """The untouched model's (visual tokens, hidden), by image or by tile, in the order of their placeholders."""
        given = {key: inputs[key] for key in self.keys if key in inputs}
        if "pixel_values" not in given:
            return []
        return list(model.get_image_features(**given, return_dict=True).pooler_output)

    def embeds(self, features: Tensor) -> Tensor:
        """What of (visual tokens, ...) features takes the place of embeddings."""
        return features

    def places(self, model: Any, ids: Tensor, inputs: Any, image: int) -> Tensor:
        """Positions of the tokens of one full prompt without its padding, (length,) or (axes, length).

        Args:
            model: the model.
            ids: (length,).
            inputs: the whole batch.
            image: which image of the batch is the prompt's first.
        """
        return torch.arange(len(ids))

    @torch.no_grad()
    def rows(
        self, model: Any, inputs: Any, kept: list[list[int]], positions: str, lengths: list[int] | None = None
    ) -> list[Row]:
        """The rows of the batch.

        Args:
            model: the model.
            inputs: the untouched inputs.
            kept: for every image the kept rows of its untouched features.
            positions: "original" or "consecutive".
            lengths: untouched visual tokens of every image; None where `features` come by image.
        """
        ids, mask = inputs["input_ids"], inputs.get("attention_mask")
        mask = torch.ones_like(ids) if mask is None else mask
        parts, token = self.features(model, inputs), self.token(model)
        lengths = [len(part) for part in parts] if lengths is None else lengths
        features = torch.cat(parts) if parts else torch.empty(0)
        made: list[Row] = []
        image = 0
        seen = used = 0  # features before this image, and placeholders of it so far
        for row in range(ids.shape[0]):
            real = ids[row][mask[row].bool()]
            places = self.places(model, real, inputs, image)
            stay, shown = [], []
            for place, value in enumerate(real.tolist()):
                if value != token:
                    stay.append(place)
                    continue
                if used in kept[image]:
                    stay.append(place)
                    shown.append(seen + used)
                used += 1
                if used == lengths[image]:
                    seen, used, image = seen + used, 0, image + 1
            left = real[stay]
            embeds = model.get_input_embeddings()(left)
            if shown:
                embeds[left == token] = self.embeds(features[shown])
            where = places[..., stay] if positions == "original" else torch.arange(len(stay))
            labels = inputs["labels"][row][mask[row].bool()][stay] if "labels" in inputs else None
            made.append(Row(left, embeds, where, labels, features[shown] if shown else features[:0]))
        assert used == 0
        assert image == len(kept)
        assert seen == len(features)
        return made

    def language(self, model: Any, row: Row) -> Tensor:
        """(1, length, hidden) last hidden states of the language model."""
        # With a mask, because transformers takes gaps in the positions of unmasked inputs for packed sequences.
        found: Tensor = model.model.language_model(
            inputs_embeds=row.embeds[None],
            position_ids=row.positions[..., None, :],
            attention_mask=torch.ones(1, len(row.ids), dtype=torch.int64),
            use_cache=False,
        ).last_hidden_state
        return found

    @torch.no_grad()
    def logits(self, model: Any, row: Row) -> Tensor:
        """(length, vocabulary) logits of one row."""
        return self.head(model, self.language(model, row))[0]

    def head(self, model: Any, states: Tensor) -> Tensor:
        """Logits of hidden states."""
        found: Tensor = model.lm_head(states)
        return found

    @torch.no_grad()
    def decode(self, model: Any, row: Row, new_tokens: int, stop: int | None = 2) -> list[int]:
        """Greedy continuation, the whole sequence run again for every token, without a cache."""
        found: list[int] = []
        grown = row
        for _ in range(new_tokens):
            best = int(self.logits(model, grown)[-1].argmax())
            found.append(best)
            if best == stop:
                break
            embed = model.get_input_embeddings()(torch.tensor([best]))
            grown = Row(
                torch.cat((grown.ids, torch.tensor([best]))),
                torch.cat((grown.embeds, embed)),
                torch.cat((grown.positions, grown.positions[..., -1:] + 1), -1),
                None,
                grown.features,
            )
        return found


_plain = ByHand()
rows, logits, decode = _plain.rows, _plain.logits, _plain.decode


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
