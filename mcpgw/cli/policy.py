"""`mcpgw policy`: what is taken away from whoever it is attached to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from mcpgw.cli import complete
from mcpgw.cli import options as o
from mcpgw.cli.groups import noun
from mcpgw.cli.io import desk, usage

if TYPE_CHECKING:
    from mcpgw.store.holders import HolderKind
    from mcpgw.store.policies import Policy

app = noun("Name restrictions and attach them to keys, teams and organizations.")

Whom = Annotated[
    str,
    typer.Argument(
        metavar="key|team|org:NAME", help="Whom it restricts.", autocompletion=complete.holders
    ),
]


@app.command("add", help="Add a policy; it restricts nobody until it is attached.")
def add(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What to call it.")],
    deny: Annotated[
        list[str],
        typer.Option(
            metavar="TARGET",
            help="What nobody it is attached to may use, in the words of `mcpgw key deny`.",
            autocompletion=complete.targets,
        ),
    ],
    json: o.Json = False,
) -> None:
    from mcpgw.store import policies

    at = desk(ctx, as_json=json)
    with at.store() as store:
        policy = policies.add_policy(store, name, denies=deny)
    if json:
        at.emit({"policies": [_as_json(policy)]})
    at.say(f"Added {policy.name}. Next: mcpgw policy attach {policy.name} team:NAME")


@app.command("list", help="List the policies.")
def list_(ctx: typer.Context, json: o.Json = False) -> None:
    from mcpgw.store import policies

    at = desk(ctx, as_json=json)
    with at.store() as store:
        found = policies.list_policies(store)
    if json:
        at.emit({"policies": [_as_json(policy) for policy in found]})
        return
    at.rows(
        ("NAME", "DENIES", "ATTACHED TO"),
        [(p.name, ", ".join(p.deny_targets), ", ".join(p.attached)) for p in found],
        empty="There is no policy yet. Next: mcpgw policy add NAME --deny TARGET",
    )


@app.command("show", help="Show a policy and whom it is attached to.")
def show(ctx: typer.Context, name: o.PolicyName, json: o.Json = False) -> None:
    from mcpgw.store import policies

    at = desk(ctx, as_json=json)
    with at.store() as store:
        policy = policies.get_policy(store, name)
    if json:
        at.emit({"policies": [_as_json(policy)]})
        return
    at.facts(
        (
            ("name", policy.name),
            ("denies", ", ".join(policy.deny_targets)),
            ("attached to", ", ".join(policy.attached)),
        )
    )


@app.command("remove", help="Remove a policy that is attached to nobody.")
def remove(
    ctx: typer.Context, name: o.PolicyName, yes: o.Yes = False, json: o.Json = False
) -> None:
    from mcpgw.store import policies

    at = desk(ctx, as_json=json)
    with at.store() as store:
        policy = policies.get_policy(store, name)
        at.confirm(f"Remove the policy {policy.name}?", yes=yes)
        policies.remove_policy(store, policy.name)
    if json:
        at.emit({"policies": [_as_json(policy)]})
    at.say(f"Removed {policy.name}.")


@app.command("attach", help="Let a policy restrict a key, or the keys of a team or organization.")
def attach(ctx: typer.Context, name: o.PolicyName, whom: Whom, json: o.Json = False) -> None:
    from mcpgw.store import policies

    at = desk(ctx, as_json=json)
    kind, holder = _whom(whom)
    with at.store() as store:
        policy = policies.attach_policy(store, name, kind, holder)
    if json:
        at.emit({"policies": [_as_json(policy)]})
    at.say(f"{policy.name} is attached to {', '.join(policy.attached)}.")


@app.command("detach", help="The opposite.")
def detach(ctx: typer.Context, name: o.PolicyName, whom: Whom, json: o.Json = False) -> None:
    from mcpgw.store import policies

    at = desk(ctx, as_json=json)
    kind, holder = _whom(whom)
    with at.store() as store:
        policy = policies.detach_policy(store, name, kind, holder)
    if json:
        at.emit({"policies": [_as_json(policy)]})
    at.say(f"{policy.name} is attached to {', '.join(policy.attached) or 'nobody'}.")


def _whom(word: str) -> tuple[HolderKind, str]:
    kind, colon, name = word.partition(":")
    if not colon or not name or kind not in ("key", "team", "org"):
        usage(
            f'"{word}" names nobody that a policy can be attached to.',
            why="That is key:NAME, team:NAME or org:NAME.",
            next="mcpgw policy attach --help",
        )
    return kind, name


def _as_json(policy: Policy) -> dict[str, Any]:
    return {
        "name": policy.name,
        "denies": list(policy.deny_targets),
        "attached": list(policy.attached),
    }
