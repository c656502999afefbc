"""The colours of all pictures: Okabe and Ito's, which colour-blind readers can tell apart. Imports nothing heavy."""

BLUE, ORANGE, GREEN, PURPLE, GREY, BLACK = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#777777", "#000000"

#: Whose numbers they are: the paper's as printed, and each preset's.
PRESET_COLOURS = {
    "printed": GREY, "tiny": GREEN, "quick": GREEN, "synthetic": BLUE, "lspet-small": ORANGE, "lspet": PURPLE,
    "paper": BLACK,
}  # fmt: skip


def limb_colour(limb: tuple[str, str]) -> str:
    """By where the limb starts: blue for the person's left side, orange for the right, green for the middle."""
    side, _, joint = limb[0].partition("-")
    return {"l": BLUE, "r": ORANGE}.get(side if joint else "", GREEN)
