"""The boards that designs are made for: one registry of objects, all bnnhw.boards.support.

A new board is a file beside these and a line in BOARDS.
"""

from bnnhw.boards import icebreaker, ulx3s
from bnnhw.boards.support import BoardSupport

BOARDS: dict[str, BoardSupport] = {  # the smallest first
    known.name: known for known in (icebreaker.BOARD, ulx3s.BOARD)
}


def board(name: str) -> BoardSupport:
    """Returns the board of a name; raises ValueError, naming those there are."""
    if name not in BOARDS:
        raise ValueError(f"board={name!r}: choose one of {', '.join(BOARDS)}")
    return BOARDS[name]
