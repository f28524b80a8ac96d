"""The examples that users of LiteLLM wrote down, unchanged."""

CONFIGURATION = """\
general_settings:
  store_model_in_db: true

mcp_servers:
  - server_name: "github-tools"
    transport: "sse"
    url: "https://mcp-server.example.com/sse"
    auth_type: "bearer"
    api_key: "os.environ/MCP_GITHUB_TOKEN"
    allowed_tools:
      - "search_repos"
      - "create_issue"

  - server_name: "internal-tools"
    transport: "http"
    url: "https://internal-mcp.example.com"
    auth_type: "api_key"
    api_key: "os.environ/MCP_INTERNAL_KEY"
    extra_headers:
      X-Custom-Header: "value"
"""

SECRET = """\
apiVersion: v1
kind: Secret
metadata:
  name: mcp-secrets
type: Opaque
stringData:
  mcp-github-token: "<github-token>"
  mcp-internal-key: "<internal-key>"
"""

ACCESS = """\
# Per-key MCP access
key_settings:
  - key_name: "dev-team-key"
    allowed_mcp_servers:
      - "github-tools"

  - key_name: "admin-key"
    allowed_mcp_servers:
      - "github-tools"
      - "internal-tools"
"""
