"""Which folder of its archive a case lies in, for sets shipped in parts."""

from __future__ import annotations

AMOS_VALIDATION = (
    *(8, 13, 18, 22, 29, 32, 34, 40, 41, 51, 56, 61, 63, 70, 73, 85, 87, 90, 106, 108, 112, 117, 120, 123, 128, 132),
    *(136, 140, 144, 150, 155, 157, 167, 174, 176, 189, 191, 194, 200, 202, 203, 204, 206, 207, 208, 216, 218, 219),
    *(223, 228, 233, 238, 244, 247, 250, 255, 257, 258, 278, 280, 283, 284, 286, 287, 289, 290, 292, 293, 304, 308),
    *(309, 310, 311, 313, 316, 318, 323, 325, 326, 328, 333, 334, 339, 342, 344, 346, 352, 356, 357, 363, 364, 365),
    *(368, 372, 373, 377, 385, 397, 399, 409),
)
"""CT cases of AMOS that lie in imagesVa and labelsVa."""
WORD_VALIDATION = (1, 7, 15, 25, 31, 35, 39, 45, 48, 66, 75, 80, 83, 85, 98, 112, 137, 139, 141, 149)
WORD_TEST = (
    *(14, 16, 17, 19, 21, 23, 24, 33, 34, 37, 43, 50, 52, 54, 57, 60, 69, 74, 76, 77, 88, 92, 97, 99, 103, 110, 120),
    *(124, 129, 131),
)


def part_of(card_id: str, number: int) -> str:
    """Return what the path of a case's image or label contains when it lies in its own part; "" for undivided sets."""
    if card_id == "abdomenct_1k":
        return f"ImagePart{1 + (number - 1) // 400}/"
    if card_id == "amos22_ct":
        return "Va/" if number in AMOS_VALIDATION else "Tr/"
    if card_id == "word":
        return "Val/" if number in WORD_VALIDATION else "Ts/" if number in WORD_TEST else "Tr/"
    if card_id == "btcv":
        return "Testing/" if number > 60 else "Training/"
    return ""


def nested(card_id: str, number: int) -> str:
    """Return the folder around the path of an image: the second part of AbdomenCT-1K unpacks into itself."""
    return "AbdomenCT-1K-ImagePart2" if card_id == "abdomenct_1k" and 400 < number <= 800 else ""
