"""What an answer says of resources, in the words of the endpoint.

Where several servers are served, some resources have another URI than their server gave them. What
a tool links to follows, so that reading it goes to the server that named it. Only answers that name
a resource at all are looked into.
"""

from __future__ import annotations

from mcpgw.core import citations, naming, wire
from mcpgw.core.catalog import RESOURCES, TEMPLATES, matches
from mcpgw.model.calls import Context, Done, JsonObject, Reply
from mcpgw.relay.lists import Lists
from mcpgw.relay.views import Seat, View


def _never(uri: str) -> None:
    """Where nothing is renamed."""


class Citations:
    """Renames what answers cite."""

    def __init__(self, lists: Lists) -> None:
        self._lists = lists

    async def follow(self, view: View, seat: Seat, reply: Reply, ctx: Context) -> Reply:
        """The answer of a seat as the endpoint has it."""
        if not isinstance(reply, Done):
            return reply
        result = await self.result(view, seat, reply.result, ctx)
        return reply if result is reply.result else Done(result, reply.kind)

    async def read(
        self, view: View, seat: Seat, reply: Reply, ctx: Context, native: str, public: str
    ) -> Reply:
        """The contents of a resource under the URI that was asked for, parts under their own."""
        if view.native or not isinstance(reply, Done):
            return reply
        parts = any(uri != native for uri in citations.contents_of(reply.result))
        if native == public and not parts:
            return reply
        others = await self._rename(view, seat, ctx) if parts else _never

        def rename(uri: str) -> str | None:
            return public if uri == native else others(uri)

        return Done(citations.renamed(reply.result, rename), reply.kind)

    async def result(self, view: View, seat: Seat, result: JsonObject, ctx: Context) -> JsonObject:
        """The same of a result; the same object when nothing in it is renamed."""
        if view.native or not citations.cites(result) or not seat.access.possible("resource"):
            return result
        return citations.renamed(result, await self._rename(view, seat, ctx))

    async def task(self, view: View, seat: Seat, task: JsonObject, ctx: Context) -> JsonObject:
        """The same of a task that tells its result."""
        if view.native or "result" not in task:
            return task
        try:
            result = wire.members(task["result"])
        except wire.BadMessage:
            return task
        told = await self.result(view, seat, result, ctx)
        return task if told is result else {**task, "result": wire.dump_object(told)}

    async def _rename(self, view: View, seat: Seat, ctx: Context) -> citations.Rename:
        prefix, name = seat.server.prefix, seat.server.name

        def always(uri: str) -> str | None:
            return None if naming.may_stay(uri) else naming.public_uri(prefix, uri)

        if len(view.able(RESOURCES)) <= 1:
            return always
        listed, _ = await self._lists.merged(view, RESOURCES, ctx)
        templates, _ = await self._lists.merged(view, TEMPLATES, ctx)
        others = [
            one.entry.native
            for one in templates.placed
            if templates.shelves[one.shelf].server != name
        ]

        def rename(uri: str) -> str | None:
            owners = listed.owners(uri)
            if not owners:
                elsewhere = any(matches(template, uri) for template in others)
            else:
                elsewhere = owners != {name}
            return naming.public_uri(prefix, uri) if elsewhere else always(uri)

        return rename
