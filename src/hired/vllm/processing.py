"""The part before the model: how many placeholders a picture gets, and what its caches are keyed by."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from vllm.logger import init_logger
from vllm.multimodal.inputs import MultiModalFieldConfig
from vllm.multimodal.parse import ImageProcessorItems, ImageSize
from vllm.multimodal.processing import ProcessorInputs, PromptReplacement

from hired.core.budget import Budget
from hired.core.layout import Layout
from hired.costs.tokens import kept_tokens
from hired.errors import InputsError
from hired.families.base import Size
from hired.vllm.geometry import Geometry
from hired.vllm.limits import served_geometry
from hired.vllm.metrics import REQUEST_LOG, count
from hired.vllm.settings import REQUEST_KEY, Settings, read, written
from hired.vllm.starting import StartError, started

logger = init_logger(REQUEST_LOG)

FIELD = "hired_image"
"""The field of a picture's processed data that says (width, height, visual tokens to keep) and the limits of the
processor, 0 and 0 where it has none; int64."""

_ALPHA_KEY = "hired_alpha"
_METHOD_KEY = "hired_method"
_KEYS = (REQUEST_KEY, _ALPHA_KEY, _METHOD_KEY)


class _Dummies(ProcessorInputs):  # type: ignore[misc]
    """Inputs that vLLM makes up to measure with."""


class PrunedInfo:
    """What vLLM asks about a model before it runs. Put before a `BaseProcessingInfo` of vLLM's.

    Attributes:
        settings: the server's settings.
        geometry: the layouts of its pictures.
    """

    ctx: Any

    def __init__(self, ctx: Any) -> None:
        """Takes what `hired.vllm.starting` has checked.

        Raises:
            StartError: as `hired.vllm.starting.started`, or a model without settings.
            UnsupportedModelError: an encoder that HiRED cannot read.
        """
        super().__init__(ctx)  # type: ignore[call-arg]
        found = started(ctx.model_config)
        if found is None:
            raise StartError('the configuration has no entry "hired"')
        self.settings, self.geometry = found

    def geometry_under(self, options: Mapping[str, object]) -> Geometry:
        """The layouts of pictures under a request's `mm_processor_kwargs`, ours left out."""
        options = {key: value for key, value in options.items() if key not in _KEYS}
        return served_geometry(self.ctx.model_config, options) if options else self.geometry

    def shown(self, data: Mapping[str, Any], layouts: Sequence[Layout]) -> bool:
        """Whether the processor's output is of pictures with these layouts, as far as it tells."""
        cut = data.get("image_sizes")
        return cut is None or [layout.size for layout in layouts] == [(width, height) for height, width in cut.tolist()]

    def get_image_size_with_most_features(self, *args: Any, **named: Any) -> Any:
        """What memory is profiled on: a picture with the most partitions, whatever is kept of it."""
        if args or named:  # not of pictures: vLLM finds the sizes of videos with it too
            return super().get_image_size_with_most_features(*args, **named)  # type: ignore[misc]
        return ImageSize(*self.geometry.largest_size)

    def get_supported_mm_limits(self) -> Mapping[str, int | None]:
        """Pictures only: videos would go unpruned."""
        return {"image": None}

    def get_num_image_tokens(self, *, image_width: int, image_height: int, **_: Any) -> int:
        """Placeholders of a picture under the server's budget."""
        return kept_tokens(self.geometry.layout(image_width, image_height), self.settings.budget)

    def get_mm_max_tokens_per_item(self, seq_len: int, mm_counts: Mapping[str, int]) -> Mapping[str, int]:
        """Most placeholders that any picture can get; the largest one need not get the most."""
        return {"image": self.geometry.limit(self.settings.budget)}


class PrunedProcessor:
    """Turns pictures into the model's inputs. Put before a `BaseMultiModalProcessor` of vLLM's."""

    info: Any

    def get_dummy_inputs(self, *args: Any, **kwargs: Any) -> ProcessorInputs:
        """Marks what is not a request."""
        dummies = super().get_dummy_inputs(*args, **kwargs)  # type: ignore[misc]
        return _Dummies(**vars(dummies))

    def apply(self, inputs: ProcessorInputs, timing_ctx: Any) -> Any:
        """Processes one prompt.

        The budget in force, alpha and the method are written into the options, which enter the keys of all of vLLM's
        caches: the server's too, because pictures that come with an id of their own are otherwise keyed by that alone.

        Raises:
            BudgetError: the request's budget is invalid, above the server's, or leaves nothing of a picture.
            InputsError: pictures that are embeddings already.
        """
        options = inputs.hf_processor_mm_kwargs
        settings: Settings = self.info.settings
        budget = settings.requested(options)
        pinned = {
            **options,
            REQUEST_KEY: written(budget),
            _ALPHA_KEY: str(settings.alpha),
            _METHOD_KEY: settings.method,
        }
        result = super().apply(replace(inputs, hf_processor_mm_kwargs=pinned), timing_ctx)  # type: ignore[misc]
        places = result["mm_placeholders"].get("image", ())
        if places and not isinstance(inputs, _Dummies):
            left = sum(place.get_num_embeds() for place in places)
            self._report(inputs.mm_data_items["image"], self.info.geometry_under(options), left, budget)
        return result

    def _report(self, pictures: Any, geometry: Geometry, left: int, budget: Budget) -> None:
        full = None
        # A picture that the client names by id only has no size any more.
        if all(pictures.get(index) is not None for index in range(len(pictures))):
            full = sum(geometry.layout(*size).tokens_full for size in _sizes(pictures))
            count(full, left)
        before = "?" if full is None else full
        logger.info(
            "HiRED: kept %d of %s visual tokens, images=%d, budget=%s", left, before, len(pictures), written(budget)
        )

    def _apply_hf_processor_main(self, mm_items: Any, hf_kwargs: Mapping[str, object]) -> Any:
        budget = read(str(hf_kwargs[REQUEST_KEY]))
        pictures = mm_items.get("image", ())
        if len(pictures) and not isinstance(pictures, ImageProcessorItems):
            raise InputsError("embeddings of pictures come without attention and cannot be pruned: send the pictures")
        geometry, sizes = self.info.geometry_under(hf_kwargs), _sizes(pictures)
        layouts = [geometry.layout(*size) for size in sizes]
        counts = [self.info.settings.tokens(layout, budget) for layout in layouts]
        rest = {key: value for key, value in hf_kwargs.items() if key not in _KEYS}
        data = super()._apply_hf_processor_main(mm_items, rest)  # type: ignore[misc]
        if counts:
            if not self.info.shown(data, layouts):
                raise InputsError(
                    f"the image processor did not cut or resize pictures of {sizes} (width, height) as the model's own"
                    " does: leave options that change this out of mm_processor_kwargs"
                )
            limits = geometry.limits or (0, 0)
            data[FIELD] = torch.tensor([[*size, count, *limits] for size, count in zip(sizes, counts, strict=True)])
        return data

    def _get_mm_fields_config(self, hf_inputs: Any, hf_processor_mm_kwargs: Mapping[str, object]) -> Any:
        fields = super()._get_mm_fields_config(hf_inputs, hf_processor_mm_kwargs)  # type: ignore[misc]
        return {**fields, FIELD: MultiModalFieldConfig.batched("image", keep_on_cpu=True)}

    def _get_prompt_updates(
        self, mm_items: Any, hf_processor_mm_kwargs: Mapping[str, object], out_mm_kwargs: Any
    ) -> Sequence[Any]:
        def placeholders(index: int) -> Any:
            # The same number that the model reads: nobody else counts.
            return self.placeholders(int(out_mm_kwargs["image"][index][FIELD].data[2]))

        target = [self.info.geometry.image_token]
        return [PromptReplacement(modality="image", target=target, replacement=placeholders)]

    def placeholders(self, count: int) -> Any:
        """What stands for a picture of `count` visual tokens: token ids, or vLLM's `PromptUpdateDetails`."""
        return [self.info.geometry.image_token] * count


def _sizes(pictures: Any) -> list[Size]:
    """(width, height) of each picture."""
    sizes = (pictures.get_image_size(index) for index in range(len(pictures)))
    return [(size.width, size.height) for size in sizes]
