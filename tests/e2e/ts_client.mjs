// The official TypeScript clients, driven by one JSON plan in argv:
// {modules, sdk: "v1" | "v2", transport: "http" | "sse" | "stdio", url, key, command, env, mode, calls}.
// Prints {revision, tools, results}.
import { createRequire } from "node:module";

const plan = JSON.parse(process.argv[2]);
const require = createRequire(`${plan.modules}/`);

function load() {
  if (plan.sdk === "v2") {
    const v2 = "@modelcontextprotocol/client";
    return { ...require(v2), ...require(`${v2}/stdio`) };
  }
  const v1 = "@modelcontextprotocol/sdk/client";
  return {
    ...require(`${v1}/index.js`),
    ...require(`${v1}/streamableHttp.js`),
    ...require(`${v1}/sse.js`),
    ...require(`${v1}/stdio.js`),
  };
}

const sdk = load();
const info = { name: "ts-client", version: "1" };
const options = plan.mode ? { versionNegotiation: { mode: plan.mode } } : {};
const client = new sdk.Client(info, options);

function transport() {
  if (plan.transport === "stdio") {
    const [command, ...args] = plan.command;
    return new sdk.StdioClientTransport({ command, args, env: plan.env, stderr: "inherit" });
  }
  const requestInit = { headers: { Authorization: `Bearer ${plan.key}` } };
  const url = new URL(plan.url);
  return plan.transport === "sse"
    ? new sdk.SSEClientTransport(url, { requestInit })
    : new sdk.StreamableHTTPClientTransport(url, { requestInit });
}

const way = transport();
await client.connect(way);
const tools = [];
let cursor;
do {
  const page = await client.listTools(cursor ? { cursor } : {});
  tools.push(...page.tools.map((tool) => tool.name));
  cursor = page.nextCursor;
} while (cursor);
const results = [];
for (const call of plan.calls) results.push(await client.callTool(call));
const revision = client.getNegotiatedProtocolVersion?.() ?? way.protocolVersion ?? null;
console.log(JSON.stringify({ revision, tools, results }));
await client.close();
