"""A sentence for each event of an adapter, with what was before and what is after."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rootstock.adapters.client.history.event_flows import EventEntry

_UNITS = {"window_seconds": " s"}
# Reasons that no rule gives. Any other is the limit that a version broke.
_CAUSES = {"alias_moved": "the alias moved", "version_deleted": "a version of it was deleted"}


def sentence(event: EventEntry) -> str:
    """Return what happened in an event, in one line."""
    tell = _SENTENCES.get(event.what, _other)
    return tell(event) + _reason(event.detail)


def _reason(detail: Mapping[str, Any]) -> str:
    """Return why something ended, or nothing for a change that someone asked for."""
    reason = detail.get("reason")
    if not isinstance(reason, str) or reason == "asked":
        return ""
    if reason in _CAUSES:
        return f" because {_CAUSES[reason]}"
    facts = [f"{name} {_plain(detail[name])}" for name in ("measured", "limit", "requests") if name in detail]
    return f" because of {reason}" + (f" ({', '.join(facts)})" if facts else "")


def _published(event: EventEntry) -> str:
    return f"version {event.version} published ({str(event.detail.get('digest'))[:19]})"


def _moved(event: EventEntry) -> str:
    return f"{event.alias}: {_version(event.detail.get('before'))} → {_version(event.version)}"


def _rolled_back(event: EventEntry) -> str:
    return f"rolled back, {_moved(event)}"


def _deleted(event: EventEntry) -> str:
    """Tell a deletion. A version that cannot come back is deleted for good."""
    return _of_version("deleted" if event.detail.get("restorable") else "deleted for good")(event)


def _of_version(what: str) -> Callable[[EventEntry], str]:
    def tell(event: EventEntry) -> str:
        aliases = event.detail.get("aliases")
        names = ", ".join(map(str, aliases)) if isinstance(aliases, list) else ""
        return f"version {event.version} {what}" + (f", with the aliases {names}" if names else "")

    return tell


def _split(event: EventEntry) -> str:
    return f"split of {event.alias or 'live'}: {_change(event)}"


def _shadow(event: EventEntry) -> str:
    return f"shadow: {_change(event)}"


def _rule(event: EventEntry) -> str:
    return f"rollback rule: {_change(event)}"


def _adapter_deleted(event: EventEntry) -> str:
    versions = event.detail.get("versions")
    numbers = ", ".join(map(str, versions)) if isinstance(versions, list) else ""
    how = "" if event.detail.get("restorable") else " for good"
    return f"adapter deleted{how}" + (f", with its versions {numbers}" if numbers else "")


def _signed(event: EventEntry) -> str:
    return f"version {event.version} signed by {event.detail.get('signer') or 'a key without a name'}"


def _other(event: EventEntry) -> str:
    words = [event.what.replace("_", " ")]
    words += [f"{event.alias}"] if event.alias else []
    words += [f"version {event.version}"] if event.version is not None else []
    told = " ".join(words)
    return f"{told}: {_change(event)}" if "before" in event.detail else told


def _change(event: EventEntry) -> str:
    return f"{_state(event.detail.get('before'))} → {_state(event.detail.get('after'))}"


def _version(value: Any) -> str:
    return "none" if value is None else f"version {value}"


def _state(value: Any) -> str:
    """Return a state as words: `version 4 with 10 %` for a share, fields with their values else."""
    if value is None or value == {}:
        return "none"
    if not isinstance(value, Mapping):
        return _plain(value)
    if all(str(name).isdigit() for name in value):
        return ", ".join(f"version {name} with {_plain(share)} %" for name, share in value.items())
    if value.keys() == {"version", "percent"}:
        return f"version {value['version']} with {_plain(value['percent'])} %"
    stated = [(name, one) for name, one in value.items() if one is not None]
    return ", ".join(f"{name} {_plain(one)}{_UNITS.get(name, '')}" for name, one in stated)


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


_SENTENCES: dict[str, Callable[[EventEntry], str]] = {
    "published": _published,
    "signed": _signed,
    "alias_set": _moved,
    "rolled_back": _rolled_back,
    "shared": lambda _: "shared with all tenants",
    "unshared": lambda _: "no longer shared",
    "activation_requested": _of_version("awaits approval"),
    "version_deleted": _deleted,
    "version_restored": _of_version("restored"),
    "version_purged": _of_version("removed for good"),
    "adapter_deleted": _adapter_deleted,
    "split_set": _split,
    "split_ended": _split,
    "shadow_set": _shadow,
    "shadow_ended": _shadow,
    "rule_set": _rule,
    "rule_removed": _rule,
}
