"""The boards that designs are made for: one registry of objects, all bnnhw.boards.support.

A new board is a file beside these and a line in BOARDS; docs/boards.md shows how.
"""

from bnnhw.boards import colorlight, ecpix5, icebreaker, orangecrab, ulx3s, upduino_v3
from bnnhw.boards.support import BoardSupport

BOARDS: dict[str, BoardSupport] = {
    known.name: known
    for known in (
        icebreaker.BOARD,
        upduino_v3.BOARD,
        *ulx3s.BOARDS,
        *orangecrab.BOARDS,
        *colorlight.BOARDS,
        *ecpix5.BOARDS,
    )
}


def board(name: str) -> BoardSupport:
    """Returns the board of a name; raises ValueError, naming those there are."""
    if name not in BOARDS:
        raise ValueError(f"board={name!r}: choose one of {', '.join(BOARDS)}")
    return BOARDS[name]
