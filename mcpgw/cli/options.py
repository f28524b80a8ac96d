"""Options and arguments that several verbs share, each described once."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import typer

from mcpgw.cli import complete

Json: TypeAlias = Annotated[bool, typer.Option("--json", help="Answer with one JSON object.")]
Yes: TypeAlias = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask first.")]

ServerName: TypeAlias = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        help="The server's name or an alias of it.",
        autocompletion=complete.server_names,
    ),
]
KeyName: TypeAlias = Annotated[
    str, typer.Argument(metavar="NAME", help="The key.", autocompletion=complete.key_names)
]
OrgName: TypeAlias = Annotated[
    str,
    typer.Argument(metavar="NAME", help="The organization.", autocompletion=complete.org_names),
]
TeamName: TypeAlias = Annotated[
    str, typer.Argument(metavar="NAME", help="The team.", autocompletion=complete.team_names)
]
GroupName: TypeAlias = Annotated[
    str, typer.Argument(metavar="NAME", help="The group.", autocompletion=complete.group_names)
]
PolicyName: TypeAlias = Annotated[
    str, typer.Argument(metavar="NAME", help="The policy.", autocompletion=complete.policy_names)
]
NewName: TypeAlias = Annotated[
    str | None, typer.Option("--name", metavar="NEW", help="Call it this from now on.")
]
InOrg: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--org",
        metavar="ORG",
        help="The organization it belongs to.",
        autocompletion=complete.org_names,
    ),
]
InTeam: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--team",
        metavar="TEAM",
        help="The team it is in: it has that team's grants until it has its own, and never more.",
        autocompletion=complete.team_names,
    ),
]
AsKey: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Act as this key, so that only what it may use is there.",
        autocompletion=complete.key_names,
    ),
]
OfServer: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="Only those of this server.", autocompletion=complete.server_names
    ),
]
Targets: TypeAlias = Annotated[
    list[str],
    typer.Argument(
        metavar="TARGET",
        help="A server (all it has), SERVER/TOOL-GLOB, SERVER/prompt:GLOB, SERVER/resource:GLOB, "
        "group:NAME, or * for everything, also what is added later.",
        autocompletion=complete.targets,
    ),
]

# What `server add` and `server set` have in common.
Command: TypeAlias = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="-- COMMAND ARG", help="The command that starts a stdio server, after --."
    ),
]
Url: TypeAlias = Annotated[
    str | None, typer.Option(metavar="URL", help="Where an HTTP server answers.")
]
TransportChoice: TypeAlias = Annotated[
    Literal["auto", "http", "sse"] | None,
    typer.Option(help="How to speak to --url; auto finds out.", show_default=False),
]
Env: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        metavar="K=V|K",
        help="A variable for the command; V may be a reference. K alone seals the value that K has "
        "in your environment in the vault.",
    ),
]
Cwd: TypeAlias = Annotated[
    str | None, typer.Option(metavar="DIR", help="The command's working directory.")
]
AuthChoice: TypeAlias = Annotated[
    Literal["none", "api-key", "bearer", "basic", "token"] | None,
    typer.Option(
        help="How --secret is sent: as x-api-key, as Authorization Bearer, Basic (USER:PASSWORD) "
        "or token.",
        show_default=False,
    ),
]
Secret: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="REF",
        help="Where the secret is: env:NAME, os.environ/NAME, file:PATH, keyring:NAME, "
        "vault:NAME, or - to read it from stdin and seal it in the vault.",
    ),
]
Header: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(metavar="K=REF|V", help="A header to send with every request to the server."),
]
ForwardHeader: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME", help="A header of clients to pass on to the server."),
]
Allow: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(metavar="PATTERN", help="Tools to offer, by their own names; else all."),
]
Deny: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(metavar="PATTERN", help="Tools never to offer, by their own names."),
]
IsolateChoice: TypeAlias = Annotated[
    Literal["session", "key", "shared"] | None,
    typer.Option(
        help="Who shares one connection or process of the server: nobody, one key's sessions "
        "(the default), or everybody.",
        show_default=False,
    ),
]
Timeout: TypeAlias = Annotated[
    float | None,
    typer.Option(metavar="SECONDS", help="How long a request may take without progress (60)."),
]
MaxConcurrent: TypeAlias = Annotated[
    int | None, typer.Option(metavar="N", min=1, help="How many requests it gets at once.")
]
Ca: TypeAlias = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="Certificates (PEM) to trust instead of the system's."),
]
ClientCert: TypeAlias = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="Certificate and key (PEM) that mcpgw shows the server."),
]
Description: TypeAlias = Annotated[
    str | None, typer.Option(metavar="TEXT", help="What it is, for people.")
]
