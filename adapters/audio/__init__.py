"""The work on a recording that the server and the trainer share."""
