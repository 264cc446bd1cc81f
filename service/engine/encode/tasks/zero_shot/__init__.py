"""Handle the tasks whose labels come with the request: for texts and for images."""
