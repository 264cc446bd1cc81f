"""The study of methods over data sets: head alone, adapter, `auto` and SetFit on draws of rows."""
