"""How fast training and prediction are on the machine at hand, beside the plain way and the machine's limits."""
