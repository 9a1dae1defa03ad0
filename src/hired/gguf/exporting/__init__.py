"""Language models as GGUF files: `hired.gguf.export`."""

from hired.gguf.exporting.run import Exported, export
from hired.gguf.exporting.types import TYPES

__all__ = ["TYPES", "Exported", "export"]
