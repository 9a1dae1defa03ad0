"""Models by name, whole or refused: the one way in which commands, measurements and scripts get them."""

from hired.loading.named import DTYPES, Loaded, load
from hired.loading.quantized import LOADS, check_load

__all__ = ["DTYPES", "LOADS", "Loaded", "check_load", "load"]
