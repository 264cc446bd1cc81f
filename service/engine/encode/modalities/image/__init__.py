"""Read image files for trunks: decode them and preprocess their pixels, with numpy and Pillow alone."""
