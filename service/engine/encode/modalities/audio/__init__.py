"""Audio: from the bytes of a recording to the array that a trunk takes, with numpy and libsndfile."""
