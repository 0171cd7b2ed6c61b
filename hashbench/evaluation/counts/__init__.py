"""From pairs of codes to counts per distance: all that an evaluation needs of them."""
