"""What an image contains: read from the image itself, never guessed from its name."""
