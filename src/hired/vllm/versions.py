"""Which vLLM this plugin was tested with."""

import re

from hired.errors import UnsupportedModelError

TESTED = ">=0.31,<0.34"
"""The range in which the plugin works; elsewhere a configuration with `hired` is refused."""

_RELEASES = {(0, 31), (0, 32), (0, 33)}


def in_range(version: str | None = None) -> bool:
    """Whether a version of vLLM (None: the installed one) is one that the plugin was tested with."""
    found = re.match(r"(\d+)\.(\d+)", _installed() if version is None else version)
    return found is not None and (int(found[1]), int(found[2])) in _RELEASES


def check(version: str | None = None) -> None:
    """Refuses a version of vLLM (None: the installed one) outside the tested range.

    Raises:
        UnsupportedModelError: a version that the plugin was not tested with.
    """
    if not in_range(version):
        raise UnsupportedModelError(
            f"vLLM {_installed() if version is None else version} is outside the range {TESTED} that HiRED's plugin was"
            f' tested with: install "vllm{TESTED}", or leave "hired" out of --hf-overrides'
        )


def _installed() -> str:
    import vllm

    return str(vllm.__version__)
