"""One picture for each open tab."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING

from hired import images
from hired.errors import ImageError

if TYPE_CHECKING:
    from hired.page.reader import Reader, Seen

__all__ = ["MOST_TABS", "Tabs", "pages_of"]

MOST_TABS = 16
"""Tabs whose pictures are kept encoded. An older tab's is encoded again when it asks again."""


class Tabs:
    """What the pictures of open tabs came to, told apart by the tab; nothing is shared between two."""

    def __init__(self, reader: Reader, most: int = MOST_TABS) -> None:
        """Start without any.

        Args:
            reader: Encodes pictures.
            most: How many are kept.
        """
        self._reader, self._most = reader, most
        self._lock = threading.Lock()
        self._held: OrderedDict[str, tuple[str, int, Seen | None]] = OrderedDict()

    def __len__(self) -> int:
        """Pictures that are held."""
        with self._lock:
            return sum(seen is not None for _, _, seen in self._held.values())

    def has(self, tab: str, path: str) -> bool:
        """Whether this file is the one that a tab named last."""
        with self._lock:
            return tab in self._held and self._held[tab][0] == path

    def see(self, tab: str, path: str, page: int = 1) -> Seen:
        """The picture of a tab, encoded when the tab names another one than before.

        Args:
            tab: Which.
            path: A file.
            page: Which page, of a PDF.

        Raises:
            HiredError: It is no picture, or the model cannot take it.
        """
        with self._lock:
            held = self._held.get(tab)
            if held is not None and held[2] is not None and held[:2] == (path, page):
                self._held.move_to_end(tab)
                return held[2]
            self._held[tab] = (path, page, None)  # let go before there is another, which needs memory too
        found = pages_of(path)
        if not 1 <= page <= len(found):
            raise ImageError(f"there is no page {page:,}: the file has {len(found):,}")
        seen = self._reader.see(found[page - 1].load())
        with self._lock:
            if tab not in self._held:  # closed meanwhile
                return seen
            self._held[tab] = (path, page, seen)
            self._held.move_to_end(tab)
            full = [name for name, (_, _, kept) in self._held.items() if kept is not None]
            for name in full[: -self._most]:
                self._held[name] = (*self._held[name][:2], None)
        return seen

    def close(self, tab: str) -> None:
        """Let go of a tab's picture."""
        with self._lock:
            self._held.pop(tab, None)


def pages_of(path: str) -> list[images.Picture]:
    """The pictures in a file: one, or those of a PDF.

    Raises:
        HiredError: It is neither.
    """
    try:
        with open(path, "rb") as file:  # by its content: the name is one that the page made
            return images.each(file)
    except OSError as error:
        raise ImageError("the picture is no longer here: choose it again") from error
