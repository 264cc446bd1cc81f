"""What the server and the trainer do alike to a recording."""
