"""Models by name: what they leave behind in the process, and weights in 4 and 8 bits."""

import importlib.util
from typing import Any

import pytest
import torch
from torch import nn
from transformers.utils import logging as bars

import hired
from hired import forms, loading, prompts
from hired.errors import MissingDependencyError, ModelLoadError
from hired.loading import quantized
from hired.loading.strangers import quiet
from tests.support.models import ALL

needs_bits = pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="needs bitsandbytes")


@pytest.mark.parametrize("transformers_shows", [True, False])
@pytest.mark.parametrize("hub_shows", [True, False])
def test_bars_are_afterwards_what_they_were(transformers_shows: bool, hub_shows: bool) -> None:
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    before = bars.is_progress_bar_enabled(), are_progress_bars_disabled()
    try:
        (bars.enable_progress_bar if transformers_shows else bars.disable_progress_bar)()
        (enable_progress_bars if hub_shows else disable_progress_bars)()
        with quiet():
            assert not bars.is_progress_bar_enabled()
            assert are_progress_bars_disabled()
        assert bars.is_progress_bar_enabled() == transformers_shows
        assert are_progress_bars_disabled() != hub_shows
    finally:
        (bars.enable_progress_bar if before[0] else bars.disable_progress_bar)()
        (disable_progress_bars if before[1] else enable_progress_bars)()


@pytest.mark.parametrize("load", ["", "3bit", "nf4", "4BIT"])
def test_other_loads_are_refused_at_once(load: str) -> None:
    with pytest.raises(ModelLoadError, match="4bit, 8bit"):
        loading.load("no/such/model", load=load)


@pytest.mark.parametrize("name", ["bitsandbytes", "accelerate"])
def test_what_is_not_installed_is_named_with_its_extra(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda wanted, *_: None if wanted == name else real(wanted))
    if name == "accelerate" and real("bitsandbytes") is None:
        pytest.skip("bitsandbytes is missed first")
    with pytest.raises(MissingDependencyError, match=rf"needs {name}.*\[quantized\]"):
        loading.load("no/such/model", load="4bit")


@needs_bits
def test_a_device_that_bitsandbytes_does_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bitsandbytes.supported_torch_devices", {"cuda"})
    with pytest.raises(ModelLoadError, match="does not load in 4bit on cpu: use --device cuda"):
        loading.load("tiny", "cpu", load="4bit")


@needs_bits
def test_a_checkpoint_that_is_quantised_already() -> None:
    config = ALL["llava_next"].model().config
    config.quantization_config = {"quant_method": "fp8"}
    with pytest.raises(ModelLoadError, match="'m' is quantised already"):
        quantized.quantization("4bit", config, "m", "auto")


@needs_bits
@pytest.mark.parametrize("load", loading.LOADS)
def test_the_llm_is_quantised_and_the_encoder_keeps_what_it_chose(load: str) -> None:
    known, processor = hired.load_tiny()
    loaded = loading.load("tiny", "cpu", load=load)
    kind = {"4bit": "Linear4bit", "8bit": "Linear8bitLt"}[load]
    packed = {name for name, module in loaded.model.named_modules() if type(module).__name__ == kind}
    llm = known.model.language_model.named_modules()
    inside = {f"model.language_model.{path}" for path, module in llm if type(module) is nn.Linear}
    assert packed == inside
    assert len(packed) > 0
    assert loaded.model.dtype == torch.float32
    sample = forms.page(7)
    words = prompts.prompt(processor, sample.question())
    reports = []
    for model in (known, loaded.model):
        inputs = prompts.inputs(model, processor, [words], [sample.image])
        reports.append(hired.reduce(model, inputs, 0.2))
    assert reports[0].selection[0].rows == reports[1].selection[0].rows


@needs_bits
@pytest.mark.parametrize("name", list(ALL))
def test_every_family_says_which_layers_are_outside_its_llm(name: str) -> None:
    model: Any = ALL[name].model()
    from transformers.quantizers.quantizers_utils import should_convert_module

    patterns = quantized._outside(model)
    inside = {id(module) for module in model.get_decoder().modules()}
    for path, module in model.named_modules():
        if isinstance(module, nn.Linear):
            assert should_convert_module(path, patterns) == (id(module) in inside), path
