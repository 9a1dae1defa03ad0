"""Typefaces that training pages are written with, beside DejaVu: free ones from Debian's packages.

None of those that measuring calls unseen (STIX, Computer Modern, Aileron) is among them. What is installed is used;
`python -m training.fonts` says what is missing and how to install it.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

from PIL import ImageFont

from hired.forms.parts import KEYS
from hired.forms.typefaces import FILES, Style

FAMILIES: dict[str, tuple[str, ...]] = {
    "fonts-adf-accanthis": ("AccanthisADFStd-*",),
    "fonts-adf-baskervald": ("BaskervaldADFStd*",),
    "fonts-adf-gillius": ("GilliusADF-*",),
    "fonts-adf-universalis": ("UniversalisADFStd-*",),
    "fonts-adf-verana": ("Verana-*", "VeranaSans-*"),
    "fonts-cabin": ("Cabin-*",),
    "fonts-cantarell": ("Cantarell-*",),
    "fonts-cardo": ("Cardo*",),
    "fonts-comfortaa": ("Comfortaa-*",),
    "fonts-croscore": ("Arimo-*", "Cousine-*", "Tinos-*"),
    "fonts-crosextra-caladea": ("Caladea-*",),
    "fonts-crosextra-carlito": ("Carlito-*",),
    "fonts-dosis": ("Dosis-*",),
    "fonts-ebgaramond": ("EBGaramond12-*",),
    "fonts-fantasque-sans": ("FantasqueSansMono-*",),
    "fonts-firacode": ("FiraCode-*",),
    "fonts-freefont-ttf": ("FreeMono*", "FreeSans*", "FreeSerif*"),
    "fonts-go": ("Go-Bold*", "Go-Regular*", "Go-Italic*", "Go-Medium*", "Go-Mono*"),
    "fonts-hack": ("Hack-*",),
    "fonts-inconsolata": ("Inconsolata*",),
    "fonts-jetbrains-mono": ("JetBrainsMono-*",),
    "fonts-junction": ("Junction*",),
    "fonts-karla": ("Karla-*",),
    "fonts-lato": ("Lato-*",),
    "fonts-league-mono": ("LeagueMono-*",),
    "fonts-league-spartan": ("LeagueSpartan-*",),
    "fonts-liberation": ("LiberationMono-*", "LiberationSans-*", "LiberationSansNarrow-*", "LiberationSerif-*"),
    "fonts-linuxlibertine": ("LinBiolinum_R*", "LinLibertine_R*"),
    "fonts-mononoki": ("mononoki-*",),
    "fonts-noto-core": ("NotoSans-*", "NotoSansDisplay-*", "NotoSerif-*", "NotoSerifDisplay-*"),
    "fonts-noto-mono": ("NotoMono-*", "NotoSansMono-*"),
    "fonts-open-sans": ("OpenSans-*",),
    "fonts-paratype": ("PTS*", "PTF*", "PTM*", "PTN*"),
    "fonts-play": ("Play-*",),
    "fonts-prociono": ("Prociono*",),
    "fonts-quicksand": ("Quicksand-*",),
    "fonts-roboto-slab": ("RobotoSlab-*",),
    "fonts-roboto-unhinted": ("Roboto-*", "RobotoCondensed-*"),
    "fonts-sil-andika": ("Andika-*",),
    "fonts-sil-charis": ("CharisSIL-*",),
    "fonts-sil-gentiumplus": ("GentiumPlus-*", "GentiumBookPlus-*"),
    "fonts-texgyre": (
        "texgyreadventor-*",
        "texgyrebonum-*",
        "texgyrecursor-*",
        "texgyreheros-*",
        "texgyrepagella-*",
        "texgyreschola-*",
        "texgyretermes-*",
    ),
    "fonts-tuffy": ("Tuffy*",),
    "fonts-urw-base35": (
        "C059-*",
        "NimbusMonoPS-*",
        "NimbusRoman-*",
        "NimbusSans-*",
        "NimbusSansNarrow-*",
        "P052-*",
        "URWBookman-*",
        "URWGothic-*",
    ),
    "fonts-vollkorn": ("Vollkorn-*",),
}
"""Families by Debian package: how their files' names begin."""
_FAINT = ("thin", "hairline", "extralight", "ultralight", "smallcaps", "math", "expanded", "extended")
"""Cuts that are not legible at the size of small print, or are no ordinary text."""
WHERE = ("/usr/share/fonts", "/usr/share/texmf/fonts")
"""Where Debian keeps fonts; `TRAINING_FONTS` names another folder."""


@cache
def files() -> dict[str, tuple[str, ...]]:
    """Installed files by family. Files of a family follow each other by name; a face in two formats counts once."""
    roots = [os.environ["TRAINING_FONTS"]] if "TRAINING_FONTS" in os.environ else WHERE
    installed: dict[str, Path] = {}
    for root in roots:
        for path in sorted(Path(root).rglob("*.[ot]tf")):
            installed.setdefault(path.stem, path)
    found: dict[str, tuple[str, ...]] = {}
    for patterns in FAMILIES.values():
        for pattern in patterns:
            faces = [p for stem, p in installed.items() if p.match(pattern) and not _odd(stem) and _readable(p)]
            if faces:
                found[pattern.rstrip("*-_")] = tuple(map(str, faces))
    return found


@cache
def style() -> Style:
    """How training pages look: every family about as often as the others, DejaVu a little more; sizes vary more than
    in measuring, some pages are textured, blurred or compressed."""
    drawn = list(FILES["train"]) * 4
    for faces in files().values():
        upright = [f for f in faces if not any(word in Path(f).stem.lower() for word in ("ital", "obl"))] or faces
        slanted = [f for f in faces if f not in upright]
        # Seven upright to one slanted: the pages that are measured show no italics.
        drawn += [upright[i % len(upright)] for i in range(7)] + slanted[:1]
    return Style(tuple(drawn), sizes=(8.7, 12.0), textured=0.35, worn=0.2)


def missing() -> list[str]:
    """Packages of `FAMILIES` none of whose families are installed."""
    have = files()
    return [p for p, patterns in FAMILIES.items() if not any(q.rstrip("*-_") in have for q in patterns)]


def _odd(stem: str) -> bool:
    return any(word in stem.lower() for word in _FAINT)


def _readable(path: Path) -> bool:
    """Whether a face has every letter that pages need, each drawn as something of its own."""
    try:
        font = ImageFont.truetype(str(path), 24, layout_engine=ImageFont.Layout.BASIC)
        drawn = {bytes(font.getmask(c)) for c in sorted(set("".join(KEYS)) | set("0123456789"))}
    except OSError:
        return False
    return len(drawn) == len(set("".join(KEYS)) | set("0123456789"))


def main() -> None:
    have = files()
    print(f"{len(have)} families beside DejaVu, {sum(map(len, have.values()))} files")
    if missing():
        print(f"missing: apt-get install {' '.join(missing())}")


if __name__ == "__main__":
    main()
