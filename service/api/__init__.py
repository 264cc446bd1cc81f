"""The routes: parse, call, map the error to a status. Nothing below this package knows a status code."""
