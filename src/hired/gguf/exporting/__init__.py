"""Language models as GGUF files: `hired.gguf.export`, and `hired gguf export`."""

from hired.gguf.exporting.run import Exported, export, export_checkpoint
from hired.gguf.exporting.types import TYPES

__all__ = ["TYPES", "Exported", "export", "export_checkpoint"]
