"""Images and recordings in requests: as base64, as parts of a form, as a whole body, and at an address."""
