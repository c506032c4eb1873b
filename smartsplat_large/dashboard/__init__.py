"""A page about one fit while it runs, among those of dask's dashboard: what a scheduler cannot know."""

from smartsplat_large.dashboard.record import Record, Snapshot
from smartsplat_large.dashboard.serve import served

__all__ = ["Record", "Snapshot", "served"]
