"""Where the page is served: by a scheduler in this process, among dask's own pages, or else by a server of its own."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Iterator
from typing import Any

from smartsplat_large.compiling import watched
from smartsplat_large.dashboard.record import Record

_NAME = "smartsplat"
_PATIENCE_S = 2.0
"""For readers who are shown the end."""


@contextlib.contextmanager
def served(record: Record, client: Any) -> Iterator[str]:
    """Serve the page on this machine, in the event loop of a dask ``client``, and yield its address.

    Whoever has the page open is shown how the ``with`` block ended.
    """
    with watched(record.compiles) as compiling, _application(record, client) as (application, address):
        record.compiling(compiling.seconds)
        try:
            yield address
        finally:
            record.end()
            client.sync(_show, application)


@contextlib.contextmanager
def _application(record: Record, client: Any) -> Iterator[tuple[Any, str]]:
    """What has the sessions of the page's readers, and its address."""
    if client.cluster is not None:
        # It goes when the scheduler does.
        yield client.sync(_add, record, client.cluster.scheduler)
        return
    server = client.sync(_start, record)
    try:
        # By the name that bokeh lets pages come from.
        yield server, f"http://localhost:{server.port}/{_NAME}"
    finally:
        client.sync(_stop, server)


# What follows imports late, for it loads bokeh.


async def _add(record: Record, scheduler: Any) -> tuple[Any, str]:
    from distributed.dashboard.core import BokehApplication
    from distributed.dashboard.scheduler import template_variables
    from tornado.ioloop import IOLoop

    # All pages share them: each has a menu.
    variables = template_variables(scheduler)
    variables["pages"].append(_NAME)
    draw = functools.partial(_draw_with_menu, record)
    application = BokehApplication({f"/{_NAME}": draw}, scheduler, template_variables=variables)
    scheduler.http_application.add_application(application)
    application.initialize(IOLoop.current())
    application.start()
    return application, f"http://127.0.0.1:{scheduler.http_server.port}/{_NAME}"


def _draw_with_menu(record: Record, scheduler: Any, variables: dict[str, Any], document: Any) -> None:
    from distributed.dashboard.components.scheduler import env

    from smartsplat_large.dashboard.document import draw

    draw(record, document)
    document.template = env.get_template("simple.html")
    document.template_variables.update(variables)


async def _start(record: Record) -> Any:
    from bokeh.application import Application
    from bokeh.application.handlers import FunctionHandler
    from bokeh.server.server import Server
    from tornado.ioloop import IOLoop

    from smartsplat_large.dashboard.document import draw

    page = Application(FunctionHandler(functools.partial(draw, record)))
    server = Server({f"/{_NAME}": page}, io_loop=IOLoop.current(), address="127.0.0.1", port=0)
    server.start()
    return server


async def _stop(server: Any) -> None:
    server.stop()


async def _show(application: Any) -> None:
    """Bring every reader's page up to date; one who does not listen is not waited for."""
    sessions = [
        session.with_document_locked(_update, session.document) for session in application.get_sessions(f"/{_NAME}")
    ]
    if sessions:
        await asyncio.wait(map(asyncio.ensure_future, sessions), timeout=_PATIENCE_S)


def _update(document: Any) -> None:
    for periodic in document.session_callbacks:
        periodic.callback()
