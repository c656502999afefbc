"""The colours of all pictures: Okabe and Ito's, which colour-blind readers can tell apart. Imports nothing heavy."""

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#777777"


def limb_colour(limb: tuple[str, str]) -> str:
    """By where the limb starts: blue for the person's left side, orange for the right, green for the middle."""
    side, _, joint = limb[0].partition("-")
    return {"l": BLUE, "r": ORANGE}.get(side if joint else "", GREEN)
