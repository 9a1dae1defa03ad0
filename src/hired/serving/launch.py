"""Reads the command line as vLLM does, adds the budget, checks, and starts vLLM's own server in this process."""

from __future__ import annotations

import importlib.util
import os
import tempfile
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hired.errors import BudgetError, HiredError, MissingDependencyError, ModelLoadError, UnsupportedModelError
from hired.families import family_for
from hired.families.base import Limits
from hired.families.checking import check_config
from hired.loading.checkpoints import load_model, load_processor
from hired.loading.strangers import strangers
from hired.vllm import ARCHITECTURES, PREFIX
from hired.vllm.geometry import Geometry, geometry_of, limits_of
from hired.vllm.settings import Settings
from hired.vllm.starting import SetUp, check_options, encoder_options
from hired.vllm.versions import check

__all__ = ["Server", "prepare", "require_vllm"]

MIDDLEWARE = "hired.serving.announce.Announce"


@dataclass(frozen=True)
class Server:
    """A server that was checked and can be started.

    Attributes:
        arguments: vLLM's own, the budget among them.
        config: the model's configuration, as the server will see it.
        settings: what it keeps.
        geometry: the layouts of its pictures.
    """

    arguments: Namespace
    config: Any
    settings: Settings
    geometry: Geometry

    @property
    def architecture(self) -> str:
        """The model's class, as its `config.json` names it."""
        name: str = self.config.architectures[0]
        return name.removeprefix(PREFIX)

    def start(self) -> None:
        """Serves until it is stopped."""
        from vllm.entrypoints.cli.serve import ServeSubcommand

        with ExitStack() as stack:
            if self.arguments.model_tag == "tiny":
                self.arguments.model_tag = stack.enter_context(_tiny())
            ServeSubcommand.cmd(self.arguments)


def require_vllm() -> None:
    """Refuses to go on without vLLM, before anything is imported.

    Raises:
        MissingDependencyError: vLLM is not installed.
    """
    if importlib.util.find_spec("vllm") is None:
        raise MissingDependencyError(
            "serving needs vLLM: install hired-vlm with its vllm extra (in a checkout: pip install '.[vllm]')"
        )


def prepare(
    words: Sequence[str],
    budget: object,
    alpha: float = 0.5,
    request_budgets: bool = False,
    method: str = "hired",
) -> Server:
    """Checks everything that can be checked before a model is loaded.

    Args:
        words: the model and vLLM's options, as for `vllm serve`.
        budget: what a picture may keep, as in `hired.reduce`.
        alpha: the full image's share of it.
        request_budgets: let requests lower the budget.
        method: the name of what the tokens are chosen by.

    Raises:
        BudgetError: a budget or alpha out of range, or one that is also in `--hf-overrides`; a method that is unknown
            or cannot be served.
        ModelLoadError: no model, or none whose configuration can be read.
        UnsupportedModelError: a model or a vLLM that the plugin does not prune.
        StartError: options that go around the budget.
        HiredError: options that would serve the model unpruned, or a plugin that vLLM did not load.
        MissingDependencyError: vLLM is not installed.
    """
    require_vllm()
    check()
    arguments = _parse(words)
    overrides = _overrides(arguments)
    _refuse(arguments)
    config = _config(arguments, overrides)
    known = ARCHITECTURES.keys() & set(config.architectures or ())
    if not known:
        raise UnsupportedModelError(
            f"{_shown(arguments)} is a {', '.join(config.architectures or ['model of no known class'])}, which cannot"
            f" be served under a budget: use a model of {' or '.join(ARCHITECTURES)}, or vllm serve"
        )
    name = PREFIX + known.pop()
    _loaded(name)
    ours = {"hired": {"budget": budget, "alpha": alpha, "method": method}, "architectures": [name]}
    check_config(config, str(arguments.model_tag))
    config.update(ours)
    settings = Settings.of(config)
    if settings is None:
        raise BudgetError("a server needs a budget")
    with strangers(str(arguments.model_tag), "lay out the pictures of"):
        geometry = geometry_of(config, _limits(arguments, config))
    settings.budget.allowance(geometry.largest)
    if arguments.model_tag != "tiny":
        _check_files(arguments)
    arguments.hf_overrides = {**overrides, **ours}
    arguments.trust_request_mm_kwargs |= request_budgets
    arguments.middleware = [*arguments.middleware, MIDDLEWARE]
    return Server(arguments, config, settings, geometry)


def _parse(words: Sequence[str]) -> Namespace:
    """vLLM's reading of its own options; wrong ones end the program as they end `vllm serve`."""
    from vllm.entrypoints.cli.serve import ServeSubcommand
    from vllm.logger import configure_logging_from_args
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    _set_up()
    parser, serve = FlexibleArgumentParser(prog="hired"), ServeSubcommand()
    serve.subparser_init(parser.add_subparsers())
    try:
        arguments = parser.parse_args(["serve", *words])
        configure_logging_from_args(arguments)
        serve.validate(arguments)
    except (ValueError, TypeError) as error:
        raise HiredError(f"vLLM refuses these options: {error}") from error
    if arguments.model_tag is None:
        raise ModelLoadError("name the model to serve: hired serve MODEL, a directory, a hub id, or tiny")
    if arguments.model_tag == "tiny" and arguments.served_model_name is None:
        arguments.served_model_name = ["tiny"]
    return arguments  # type: ignore[no-any-return]


def _set_up() -> None:
    """The environment of a command of vLLM's."""
    try:
        from vllm.entrypoints.common.startup import cli_env_setup
    except ImportError:  # vLLM before 0.33
        from vllm.entrypoints.serve.utils.api_utils import cli_env_setup
    cli_env_setup()


def _refuse(arguments: Namespace) -> None:
    """Refuses options with which the plugin would not prune; the engine refuses them too, after more time."""
    if arguments.model_impl not in ("auto", "vllm"):
        raise HiredError(f"--model-impl {arguments.model_impl} would serve every token: leave it out")
    SetUp(
        stages=arguments.pipeline_parallel_size,
        drafter=(arguments.speculative_config or {}).get("method"),
        encoder=encoder_options(arguments.compilation_config),
        adapters=arguments.enable_tower_connector_lora,
        embeds=arguments.enable_mm_embeds,
    ).check()
    check_options(arguments.mm_processor_kwargs)


def _overrides(arguments: Namespace) -> dict[str, Any]:
    """The user's own `--hf-overrides`."""
    given = arguments.hf_overrides or {}
    if not isinstance(given, dict):
        raise HiredError("--hf-overrides must be a JSON object")
    if "hired" in given:
        raise BudgetError("--budget, --alpha and --method say what to keep: leave hired out of --hf-overrides")
    return given


def _config(arguments: Namespace, overrides: dict[str, Any]) -> Any:
    """The model's configuration, read as vLLM will read it."""
    from vllm.transformers_utils.config import get_config

    model = arguments.model_tag
    if model == "tiny":
        from hired.tiny import WEIGHTS

        model = str(WEIGHTS)
    nested = {key: value for key, value in overrides.items() if isinstance(value, dict)}
    with strangers(str(arguments.model_tag), "read the configuration of"):
        config = get_config(
            arguments.hf_config_path or model,
            arguments.trust_remote_code,
            revision=arguments.revision,
            code_revision=arguments.code_revision,
            config_format=arguments.config_format,
            token=arguments.hf_token,
            hf_overrides_kw={key: value for key, value in overrides.items() if key not in nested},
        )
    for key, value in nested.items():
        part: Any = getattr(config, key, None)
        if hasattr(part, "to_dict"):
            part.update(value)
        else:
            setattr(config, key, value)
    return config


def _limits(arguments: Namespace, config: Any) -> Limits | None:
    """Those of the checkpoint's image processor, for a family that has such limits."""
    family = family_for(config.model_type, _shown(arguments))
    if family.limited is None:
        return None
    from transformers import AutoImageProcessor

    source = str(Path(arguments.model_tag).expanduser())
    processor = AutoImageProcessor.from_pretrained(source, revision=arguments.revision, token=arguments.hf_token)
    return limits_of(family, processor, arguments.mm_processor_kwargs or {})


def _check_files(arguments: Namespace) -> None:
    """Reads a checkpoint's processor, and of one on disk the names and shapes of its weights, before vLLM starts.

    Without `--trust-remote-code`, transformers would ask in the running server whether to run a processor's own code:
    here it raises. Weights are left to vLLM where it is told to read them in another way than from safetensors.

    Raises:
        ModelLoadError: the checkpoint is not whole, or needs code of its own.
    """
    source, name = str(Path(arguments.model_tag).expanduser()), str(arguments.model_tag)
    if not arguments.trust_remote_code:
        load_processor(source, name, revision=arguments.revision, token=arguments.hf_token)
    plain = arguments.load_format in ("auto", "safetensors") and not arguments.hf_overrides
    if plain and any(Path(source).glob("*.safetensors")) and importlib.util.find_spec("accelerate") is not None:
        load_model(source, name, arguments.trust_remote_code, device_map="meta")


def _loaded(name: str) -> None:
    """Whether vLLM loads the plugin in this process; in the others, a model of this name does not load without it."""
    from vllm.model_executor.models import ModelRegistry
    from vllm.plugins import load_general_plugins

    load_general_plugins()
    if name in ModelRegistry.get_supported_archs():
        return
    if "VLLM_PLUGINS" in os.environ:
        raise HiredError(
            f"VLLM_PLUGINS={os.environ['VLLM_PLUGINS']!r} keeps vLLM from loading HiRED's plugin, and the server would"
            " run unpruned: add hired to it, or unset it"
        )
    raise HiredError(
        "vLLM did not load HiRED's plugin, and the server would run unpruned: what went wrong is in vLLM's messages"
        " above; if there are none, install hired-vlm again into this environment"
    )


def _shown(arguments: Namespace) -> str:
    return repr(str(arguments.model_tag))


@contextmanager
def _tiny() -> Iterator[str]:
    """The shipped model in vLLM's form, in a directory that goes away with the server."""
    from hired.tiny import WEIGHTS
    from hired.vllm.checkpoints import export

    with tempfile.TemporaryDirectory(prefix="hired-tiny-") as folder:
        export(WEIGHTS, folder)
        yield folder
