from __future__ import annotations

import json
from typing import Any

import pytest

from mcpgw.errors import GatewayError
from mcpgw.store.files import export, imports
from mcpgw.store.files.brought import Brought
from mcpgw.store.files.schema import Document
from mcpgw.store.files.text import parse

from . import seed


def bring(text: str, name: str = "config.yaml") -> Brought:
    return imports.bring(parse(text, name))


def values(brought: Brought) -> dict[str, Any]:
    return export.tree(brought.document)[0]


def reports(brought: Brought) -> dict[str, str]:
    return {one.path: one.what for one in brought.reports}


def test_the_seed_s_servers() -> None:
    brought = bring(seed.CONFIGURATION)
    assert values(brought)["servers"] == {
        "github-tools": {
            "url": "https://mcp-server.example.com/sse",
            "transport": "sse",
            "auth": "bearer",
            "secret": "os.environ/MCP_GITHUB_TOKEN",
            "allow": ["search_repos", "create_issue"],
        },
        "internal-tools": {
            "url": "https://internal-mcp.example.com",
            "transport": "http",
            "auth": "api-key",
            "secret": "os.environ/MCP_INTERNAL_KEY",
            "headers": {"X-Custom-Header": "value"},
        },
    }
    assert list(reports(brought)) == ["general_settings.store_model_in_db"]
    assert brought.seals == {}


def test_the_seed_s_keys_alone_and_after_its_servers() -> None:
    keys = bring(seed.ACCESS)
    alone = imports.known(keys, Document())
    assert values(alone) == {"keys": {"admin-key": {"grants": []}, "dev-team-key": {"grants": []}}}
    assert "no server called github-tools" in reports(alone)["keys.dev-team-key"]
    servers = bring(seed.CONFIGURATION).document
    assert values(imports.known(keys, servers))["keys"] == {
        "admin-key": {"grants": ["github-tools", "internal-tools"]},
        "dev-team-key": {"grants": ["github-tools"]},
    }


def test_the_seed_s_secret() -> None:
    brought = bring(seed.SECRET)
    assert brought.seals == {}
    assert "mcpgw secret set mcp-github-token" in reports(brought)["stringData.mcp-github-token"]
    filled = bring(seed.SECRET.replace("<github-token>", "planted"))
    assert filled.seals == {"mcp-github-token": "planted"}


def test_all_of_the_seed_in_one_file() -> None:
    brought = bring("---\n".join((seed.CONFIGURATION, seed.SECRET, seed.ACCESS)))
    assert set(brought.document.servers) == {"github-tools", "internal-tools"}
    assert set(brought.document.keys) == {"admin-key", "dev-team-key"}


def test_a_secret_s_base64() -> None:
    text = "apiVersion: v1\nkind: Secret\ndata: {a: cGxhbnRlZAo=, b: '%%'}\n"
    brought = bring(text)
    assert brought.seals == {"a": "planted"}
    assert "base64" in reports(brought)["data.b"]


DOCUMENTED = """\
model_list:
  - model_name: gpt-4o
    litellm_params: {model: openai/gpt-4o, api_key: sk-xxxxxxx}
litellm_settings:
  mcp_aliases:
    "deep": "deepwiki_mcp"
    "zapier": "zapier_mcp_server"
mcp_servers:
  deepwiki_mcp:
    url: "https://mcp.deepwiki.com/mcp"
  circleci_mcp:
    transport: "stdio"
    command: "npx"
    args: ["-y", "@circleci/mcp-server-circleci"]
    env:
      CIRCLECI_TOKEN: "your-circleci-token"
      CIRCLECI_BASE_URL: "https://circleci.com"
  my_http_server:
    url: "https://my-mcp-server.com/mcp"
    transport: "http"
    description: "My custom MCP server"
    auth_type: "api_key"
    auth_value: "abc123"
  oauth2_example:
    url: "https://my-mcp-server.com/mcp"
    auth_type: "oauth2"
    client_id: os.environ/OAUTH_CLIENT_ID
    client_secret: os.environ/OAUTH_CLIENT_SECRET
  bearer_example:
    url: "https://my-mcp-server.com/mcp"
    auth_type: "bearer_token"
    authentication_token: "abc123"
  basic_example:
    url: "https://my-mcp-server.com/mcp"
    auth_type: "basic"
    auth_value: "dXNlcjpwYXNz"
  custom_auth_example:
    url: "https://my-mcp-server.com/mcp"
    auth_type: "authorization"
    auth_value: "Token example123"
  forwarding:
    url: "https://api.githubcopilot.com/mcp"
    extra_headers: ["custom_key", "X-Custom-Header"]
  petstore_mcp:
    url: "https://petstore.swagger.io/v2"
    spec_path: "/path/to/openapi.json"
    auth_type: "none"
  grouped:
    url: "https://a.example/mcp"
    access_groups: ["dev_group"]
    allow_all_keys: true
    disallowed_tools: [drop]
    allowed_params: {search: [q]}
    static_headers: {X-API-Key: "abc123", X-Plain: "some-value"}
  "my server__x":
    server_name: "my server__x"
    alias: "mine"
    url: "https://b.example/mcp"
key_settings:
  ann:
    object_permission:
      mcp_servers: [deepwiki_mcp, forwarding]
      mcp_access_groups: [dev_group]
      mcp_tool_permissions: {forwarding: [a, b]}
  ben:
    allowed_mcp_servers: [no-mcp-servers]
"""


def test_what_litellm_documents() -> None:
    brought = bring(DOCUMENTED)
    found, told = values(brought), reports(brought)
    servers = found["servers"]
    assert servers["deepwiki_mcp"] == {
        "url": "https://mcp.deepwiki.com/mcp",
        "aliases": ["deep"],
        "prefix": "deep",
    }
    assert servers["circleci_mcp"]["command"] == ["npx", "-y", "@circleci/mcp-server-circleci"]
    assert servers["circleci_mcp"]["env"] == {
        "CIRCLECI_TOKEN": "vault:server/circleci_mcp/CIRCLECI_TOKEN",
        "CIRCLECI_BASE_URL": "https://circleci.com",
    }
    assert servers["my_http_server"]["secret"] == "vault:server/my_http_server"
    assert servers["my_http_server"]["description"] == "My custom MCP server"
    assert servers["bearer_example"]["auth"] == "bearer"
    assert brought.seals["server/basic_example"] == "user:pass"
    assert brought.seals["server/custom_auth_example/Authorization"] == "Token example123"
    assert servers["custom_auth_example"]["headers"] == {
        "Authorization": "vault:server/custom_auth_example/Authorization"
    }
    assert servers["forwarding"]["forward_headers"] == ["custom_key", "x-custom-header"]
    assert servers["grouped"]["headers"] == {
        "X-API-Key": "vault:server/grouped/X-API-Key",
        "X-Plain": "some-value",
    }
    assert servers["my-server_x"]["prefix"] == "mine"
    for name in ("oauth2_example", "petstore_mcp"):
        assert servers[name]["enabled"] is False
    assert found["groups"] == {"dev_group": ["grouped"]}
    assert found["keys"]["ann"]["grants"] == [
        "deepwiki_mcp",
        "forwarding/a",
        "forwarding/b",
        "group:dev_group",
        "grouped",
    ]
    assert found["keys"]["ben"]["grants"] == ["grouped"]
    for path in (
        "model_list",
        "litellm_settings.mcp_aliases.zapier",
        "mcp_servers.oauth2_example.auth_type",
        "mcp_servers.oauth2_example.client_secret",
        "mcp_servers.petstore_mcp.spec_path",
        "mcp_servers.grouped.allowed_params",
        "mcp_servers.grouped.allow_all_keys",
        "mcp_servers.my server__x",
    ):
        assert path in told


@pytest.mark.parametrize(
    "kind", ["oauth2", "oauth2_token_exchange", "oauth2_id_jag", "aws_sigv4", "brand_new"]
)
def test_what_has_no_counterpart_is_reported_and_disabled(kind: str) -> None:
    brought = bring(f"mcp_servers: {{x: {{url: 'https://x.example', auth_type: {kind}}}}}")
    assert brought.document.servers["x"].enabled is False
    assert "no counterpart yet" in reports(brought)["mcp_servers.x.auth_type"]


CLIENTS = {
    "mcpServers": {
        "github": {
            "type": "http",
            "url": "https://api.example.com/mcp",
            "headers": {"Authorization": "Bearer ${GITHUB_TOKEN}", "X-Team": "core"},
        },
        "literal": {"url": "https://l.example/sse", "headers": {"authorization": "Bearer planted"}},
        "fs": {
            "command": "npx",
            "args": ["-y", "server"],
            "env": {"API_KEY": "planted-2", "LEVEL": "INFO", "PORT": 8080},
            "disabled": True,
            "autoApprove": ["x"],
        },
        "asks": {"url": "https://a.example/mcp", "headers": {"X-Key": "${input:key}"}},
    }
}


def test_clients() -> None:
    brought = bring(json.dumps(CLIENTS), "claude_desktop_config.json")
    assert values(brought)["servers"] == {
        "asks": {
            "url": "https://a.example/mcp",
            "headers": {"X-Key": "${input:key}"},
            "enabled": False,
        },
        "fs": {
            "command": ["npx", "-y", "server"],
            "env": {"API_KEY": "vault:server/fs/API_KEY", "LEVEL": "INFO", "PORT": "8080"},
            "enabled": False,
        },
        "github": {
            "url": "https://api.example.com/mcp",
            "transport": "http",
            "auth": "bearer",
            "secret": "env:GITHUB_TOKEN",
            "headers": {"X-Team": "core"},
        },
        "literal": {
            "url": "https://l.example/sse",
            "auth": "bearer",
            "secret": "vault:server/literal",
        },
    }
    assert brought.seals == {"server/literal": "planted", "server/fs/API_KEY": "planted-2"}
    assert "mcpServers.fs.autoApprove" in reports(brought)
    assert "mcpServers.asks" in reports(brought)


@pytest.mark.parametrize("place", ["servers", "mcp.servers"])
def test_vs_code(place: str) -> None:
    text = '{ // mine\n "x": {"type": "stdio", "command": "a", "args": [],},}'
    for step in reversed(place.split(".")):
        text = f'{{"{step}": {text}}}'
    brought = bring(text, "mcp.json")
    assert values(brought)["servers"] == {"x": {"command": ["a"]}}


@pytest.mark.parametrize(
    ("text", "code"),
    [("servers: {a: {url: x}}", "own_format"), ("a: 1", "unknown_format"), ("", "unknown_format")],
)
def test_other_files_are_refused(text: str, code: str) -> None:
    with pytest.raises(GatewayError) as refused:
        bring(text)
    assert refused.value.code == code


def test_nothing_in_a_report_is_a_secret() -> None:
    for brought in (bring(DOCUMENTED), bring(json.dumps(CLIENTS), "x.json")):
        told = repr(brought.reports) + repr(brought.document)
        for secret in brought.seals.values():
            assert secret not in told


def test_a_server_that_cannot_be_stored_holds_nothing_else_up() -> None:
    brought = bring(
        "mcp_servers: {a: {url: '<your url>', access_groups: [g]}, b: {url: 'https://b.example/'}}\n"
        "key_settings: {k: {allowed_mcp_servers: [a, b]}}\n"
    )
    found = imports.known(brought, Document())
    assert values(found) == {
        "servers": {"b": {"url": "https://b.example/"}},
        "groups": {"g": []},
        "keys": {"k": {"grants": ["b"]}},
    }
    assert reports(found)["servers.a"].startswith("is left out: Its URL must begin with http")
