"""Results and progress, as people and scripts read them."""
