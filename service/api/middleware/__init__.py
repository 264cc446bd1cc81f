"""The ASGI middleware around every route, one file for each of its subjects; gate.py applies them in order."""
