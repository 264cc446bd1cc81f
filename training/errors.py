"""What can go wrong when an adapter is trained, as types. Each message is one line for people."""


class TrainingError(Exception):
    """A training run that cannot go on: says which file, what was found and what to do."""


class RecipeError(TrainingError):
    """A recipe that cannot be used: names the file and the key."""


class DataError(TrainingError):
    """Labelled data that cannot be used: names the file and, where there is one, the line."""
