"""Programs that answer one question about a host, an image or a folder, and end."""
