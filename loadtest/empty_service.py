"""What BentoML costs by itself: a service that does nothing (`bentoml serve loadtest.empty_service:Empty`)."""

from __future__ import annotations

import bentoml


@bentoml.service(name="empty", workers=1, metrics={"enabled": False})
class Empty:
    """One worker and one route, without metrics, as our own service has it."""

    @bentoml.api  # type: ignore[untyped-decorator]
    def nothing(self) -> str:
        """Nothing."""
        return ""
