"""Weights of a checkpoint by their names, read one at a time from the files that hold them; no model is built."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hired.errors import ModelLoadError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Shards"]

_ONE, _SEVERAL = "model.safetensors", "model.safetensors.index.json"
_PICKLED, _SEVERAL_PICKLED = "pytorch_model.bin", "pytorch_model.bin.index.json"


class Shards:
    """The weights of a checkpoint.

    Attributes:
        names: of all its weights, as its files call them.
    """

    def __init__(self, source: str, name: str) -> None:
        """Finds the files; of a checkpoint of several, none but its index is read or downloaded here.

        Args:
            source: a directory or a hub id.
            name: what errors call it.

        Raises:
            ModelLoadError: it holds no weights, or an index that is none.
        """
        self._source, self._name = source, name
        self._open: dict[str, Any] = {}
        self._file_of = self._files()
        self.names = tuple(self._file_of)

    def read(self, name: str) -> Tensor:
        """A weight, on the CPU, in the dtype that it is stored in.

        Raises:
            ModelLoadError: the file that should hold it does not.
        """
        held = self._held(self._file_of[name])
        if name not in held.keys():  # noqa: SIM118 - safetensors' files are no mappings
            raise ModelLoadError(f"{self._name!r} lacks the weight {name}: download or save it again")
        found: Tensor = held[name] if isinstance(held, dict) else held.get_tensor(name)
        return found

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a weight, which is not read for it.

        Raises:
            ModelLoadError: the file that should hold it does not.
        """
        held = self._held(self._file_of[name])
        if isinstance(held, dict) or name not in held.keys():  # noqa: SIM118
            return tuple(self.read(name).shape)
        return tuple(held.get_slice(name).get_shape())

    def fetch(self, names: Iterable[str]) -> None:
        """Opens the files that hold these weights, downloading those that are not here."""
        for file in dict.fromkeys(self._file_of[name] for name in names):
            self._held(file)

    def _files(self) -> dict[str, str]:
        """The file of every weight."""
        for several, one in ((_SEVERAL, _ONE), (_SEVERAL_PICKLED, _PICKLED)):
            index = self._path(several)
            if index is not None:
                return self._indexed(index)
            if self._path(one) is not None:
                return dict.fromkeys(self._held(one).keys(), one)
        raise ModelLoadError(f"{self._name!r} holds no weights: neither {_ONE} nor {_SEVERAL}")

    def _indexed(self, index: Path) -> dict[str, str]:
        told = json.loads(index.read_text(encoding="utf-8"))
        files = told.get("weight_map") if isinstance(told, dict) else None
        if not isinstance(files, dict) or not all(isinstance(file, str) and _plain(file) for file in files.values()):
            raise ModelLoadError(f"{self._name!r} has no weight_map in {index.name}: download or save it again")
        return files

    def _path(self, file: str) -> Path | None:
        from transformers.utils import cached_file

        found = cached_file(self._source, file, _raise_exceptions_for_missing_entries=False)
        return None if found is None else Path(found)

    def _held(self, file: str) -> Any:
        """An open file: of safetensors, or the mapping that a pickled one holds."""
        if file not in self._open:
            path = self._path(file)
            if path is None:
                raise ModelLoadError(f"{self._name!r} lacks {file}, which holds weights: download it again")
            self._open[file] = _opener(path)(path)
        return self._open[file]


def _plain(file: str) -> bool:
    """Whether a name in an index stays inside the checkpoint."""
    return not Path(file).is_absolute() and ".." not in Path(file).parts


def _opener(path: Path) -> Callable[[Path], Any]:
    if path.suffix == ".safetensors":
        from safetensors import safe_open

        return lambda path: safe_open(path, framework="pt")
    import torch

    return lambda path: torch.load(path, map_location="cpu", weights_only=True, mmap=True)
