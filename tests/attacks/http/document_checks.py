"""A check of schemathesis that is stricter than its own: `default` does not describe a status."""

from __future__ import annotations

import schemathesis
from schemathesis import Case, CheckContext
from schemathesis.core.transport import Response


@schemathesis.check
def status_is_listed(ctx: CheckContext, response: Response, case: Case) -> bool | None:
    """Fail for a status that the operation does not list. Another method than its own has no list."""
    listed = case.operation.definition.raw["responses"]
    if case.method.lower() == case.operation.method.lower() and str(response.status_code) not in listed:
        raise AssertionError(f"the status {response.status_code} is not documented; documented: {sorted(listed)}")
    return None
