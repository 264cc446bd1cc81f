"""The cache of exports, and the check that an int8 export passes."""
