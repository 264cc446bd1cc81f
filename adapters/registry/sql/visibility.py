"""Finds the adapter that a name means to a viewer: the viewer's, or one that another tenant shares.

A viewer of None uses the whole registry, by the names that it keeps. Only programs that hold the home do.
"""

import difflib
from collections.abc import Sequence
from typing import NoReturn

from sqlalchemy import ColumnElement, and_, or_, select
from sqlalchemy.orm import Session

from rootstock.adapters.errors import NotOwner, UnknownAdapter
from rootstock.adapters.reference import (
    DEFAULT_TENANT,
    FOUNDATION,
    shown,
    split_path,
    split_stored,
    stored_name,
)
from rootstock.adapters.registry.records import Viewer
from rootstock.adapters.registry.sql.tables import AdapterRow

_NEIGHBOURS = 32


def candidates(owner: str | None, name: str, viewer: Viewer | None) -> list[tuple[str, bool]]:
    """Return the stored names that a name may mean, the first that exists, and whether each must be shared."""
    if viewer is None:
        return [(stored_name(owner or DEFAULT_TENANT, name), False)]
    if owner is not None and owner != viewer.tenant:
        return [(stored_name(owner, name), True)]
    own = stored_name(viewer.tenant, name), False
    return [own] if owner is not None or viewer.tenant == DEFAULT_TENANT else [own, (name, True)]


def named(stored: str, viewer: Viewer | None) -> str:
    """Return the name by which a viewer calls an adapter."""
    return stored if viewer is None else viewer.named(stored)


def find_adapter(session: Session, path: str, viewer: Viewer | None = None) -> AdapterRow:
    """Return the adapter that `name` or `tenant/name` means; else raise UnknownAdapter with up to three names."""
    parts = split_path(path)
    if parts is None:
        raise UnknownAdapter(f"no adapter is named {shown(path)}; list the adapters to see their names")
    for stored, must_be_shared in candidates(*parts, viewer):
        row = session.get(AdapterRow, stored)
        if row is not None and row.deleted_at is None and (row.shared or not must_be_shared):
            return row
    _refuse(session, path, parts, viewer)


def find_own(session: Session, path: str, viewer: Viewer | None = None) -> AdapterRow:
    """Return the adapter to change. Raise UnknownAdapter, or NotOwner if another tenant shares it."""
    row = find_adapter(session, path, viewer)
    if viewer is not None and row.tenant != viewer.tenant:
        raise NotOwner(
            f"adapter {shown(path)} belongs to the tenant {row.tenant!r}, and only that tenant changes it; "
            "publish an adapter under this name to have one yourself",
            param="name",
        )
    return row


def visible(viewer: Viewer | None) -> ColumnElement[bool]:
    """Return the condition for the adapters that a viewer can use."""
    present = AdapterRow.deleted_at.is_(None)
    if viewer is None:
        return present
    return and_(present, or_(AdapterRow.tenant == viewer.tenant, AdapterRow.shared))


def words(items: Sequence[str]) -> str:
    """Return the items as text: with commas, and "or" before the last."""
    return " or ".join(filter(None, [", ".join(items[:-1]), items[-1]])) if items else ""


def _refuse(session: Session, path: str, parts: tuple[str | None, str], viewer: Viewer | None) -> NoReturn:
    owner, name = parts
    if name == FOUNDATION:
        raise UnknownAdapter(f"{FOUNDATION!r} is the foundation itself, not an adapter in the registry")
    near: dict[str, str] = {}
    for stored, _ in candidates(owner, name, viewer):
        for neighbour in _neighbours(session, stored, viewer):
            near.setdefault(split_stored(neighbour)[1], named(neighbour, viewer))
    close = [near[one] for one in difflib.get_close_matches(name, list(near), n=3)]
    hint = f"; did you mean {words(close)}?" if close else "; list the adapters to see their names"
    raise UnknownAdapter(f"no adapter is named {shown(path)}{hint}")


def _neighbours(session: Session, stored: str, viewer: Viewer | None) -> list[str]:
    """Return the next names of the same tenant that the viewer can use, in both directions."""
    # A comparison with every name would let a stream of wrong names take seconds of processor time.
    here = AdapterRow.tenant == split_stored(stored)[0]
    present = select(AdapterRow.name).where(here, visible(viewer)).limit(_NEIGHBOURS)
    after = session.scalars(present.where(AdapterRow.name > stored).order_by(AdapterRow.name)).all()
    before = session.scalars(present.where(AdapterRow.name < stored).order_by(AdapterRow.name.desc())).all()
    return [*before, *after]
