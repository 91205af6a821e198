"""What an image holds: asked of the image itself, never guessed from its name."""
