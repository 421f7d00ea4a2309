"""Which regular expressions an engine's grammar holds to the letter. Pure."""

import re
import warnings
from collections.abc import Sequence
from itertools import pairwise

MAX_CHARS = 512
MAX_REPEAT = 128  # from 129 on the engine's compiler fails

SET = r"\[\^?\]?(?:\\.|[^\]\\])*\]"
OPTIONAL_GROUP = re.compile(rf"(\\.|{SET})|\)\?\??", re.DOTALL)
PIECE = re.compile(rf"\\.|{SET}" r"|\(\?P?<\w+>|\(\?.|\{[^{}]*\}|.", re.DOTALL)
REPEAT = re.compile(r"\{(\d{1,9})(?:,(\d{0,9}))?\}")
OPENING = re.compile(r"\((\?:|\?P<\w+>)?")
QUANTIFIERS = ("*", "+", "?")
ESCAPED_LETTERS = "dDwWsSnrtfv"


# A character that stands in JSON for itself. All but the others would let half of a character pass for one.
PLAIN = "[ !#-\\x5b\\x5d-\ud7ff\ue000-\U0010ffff]"
# In a string of JSON these are written otherwise, and outside of a set an engine does not know that.
NOT_PLAIN = frozenset('"\n\r\t\f\v').union("\\" + escaped for escaped in '"\\nrtfv')


def of_length(least: int, most: int | None) -> str:
    """Strings of so many characters, none of which JSON would write in another way."""
    if most is None:
        return f"^{PLAIN}{{{least}}}{PLAIN}*$" if least else f"^{PLAIN}*$"
    return f"^{PLAIN}{{{least},{most}}}$" if most else "^$"


def with_optional_groups_spelled_out(pattern: str) -> str:
    """The same: `(ab+)?` as `(ab+|)`. Of the first an engine takes the end alone too: a `b`."""
    return OPTIONAL_GROUP.sub(lambda found: found[1] or "|)", pattern)


def complaint_about(pattern: str) -> str | None:
    """Why it cannot be enforced: the end of a sentence that begins with the pattern."""
    if len(pattern) > MAX_CHARS:
        return f"is longer than {MAX_CHARS} characters"
    if not _compiles(pattern):
        return "is not a regular expression"
    pieces = PIECE.findall(pattern)
    for piece in pieces:
        if reason := _complaint_about_piece(piece):
            return reason
    if any(b == "+" and _is_quantifier(a) for a, b in pairwise(pieces)):
        return "has a possessive quantifier, which is not enforced"
    if not (_are_outermost("^", pieces, "(", ")") and _are_outermost("$", pieces[::-1], ")", "(")):
        return "has an anchor inside, which is not enforced"
    return None


def count_repeats(pattern: str) -> int:
    """How many single characters it says when every repetition is written out as often as it may be."""
    sums, last = [0], 0
    for piece in PIECE.findall(pattern):
        if OPENING.fullmatch(piece):
            sums.append(0)
            last = 0
        elif piece == ")" and len(sums) > 1:
            last = sums.pop()
            sums[-1] += last
        elif match := REPEAT.fullmatch(piece):
            more = last * (max(int(match[2] or match[1]), 1) - 1)
            sums[-1] += more
            last += more
        elif piece not in ("^", "$", "|") and not _is_quantifier(piece):
            last = 1
            sums[-1] += 1
    return sum(sums)


def _compiles(pattern: str) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of sets that will mean something else one day
        try:
            re.compile(pattern)
        except (re.error, OverflowError, RecursionError):
            return False
    return "\0" not in pattern


def _complaint_about_piece(piece: str) -> str | None:
    is_unknown_escape = piece[0] == "\\" and piece[1].isalnum() and piece[1] not in ESCAPED_LETTERS
    if is_unknown_escape or (piece.startswith("(?") and not OPENING.fullmatch(piece)):
        return f"has {piece}, which is not enforced"
    if piece in NOT_PLAIN or (piece[0] == "[" and piece[1:-1] in NOT_PLAIN):
        return f"has {piece!r}, which JSON writes otherwise: it is not enforced"
    if piece[0] == "[" and ("[" in piece[1:].replace("\\[", "") or "&&" in piece):
        return "has a set within a set, which is not enforced"
    return _complaint_about_braces(piece) if piece[0] == "{" else None


def _complaint_about_braces(piece: str) -> str | None:
    match = REPEAT.fullmatch(piece)
    if not match:
        return f"has {piece}, which is no repetition; a brace is written \\{{"
    if max(int(match[1]), int(match[2] or 0)) > MAX_REPEAT:
        return f"repeats more than {MAX_REPEAT} times"
    return None


def _is_quantifier(piece: str) -> bool:
    return piece in QUANTIFIERS or bool(REPEAT.fullmatch(piece))


def _are_outermost(anchor: str, pieces: Sequence[str], opening: str, closing: str) -> bool:
    """Whether nothing comes before any of the anchors but brackets: elsewhere an engine passes over them."""
    is_first, firsts = True, [True]
    for piece in pieces:
        if piece.startswith(opening):
            firsts.append(is_first)
        elif piece.startswith(closing) and len(firsts) > 1:
            firsts.pop()
            is_first = False
        elif piece == "|":
            is_first = firsts[-1]
        elif piece == anchor:
            if not is_first:
                return False
        else:
            is_first = False
    return True
