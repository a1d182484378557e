import { EngineError } from "#base/errors.ts";
import type { ConnectedEndpoint, NetworkEngine } from "#engine/networks.ts";
import { parseFilters } from "#wire/filters.ts";
import * as go from "#wire/go-json.ts";
import type { ApiVersion, Exchange, Route } from "./route.ts";
import { atLeast } from "./version.ts";

type Network = ReturnType<NetworkEngine["list"]>[number];

const createBody = go.struct("CreateRequest", { Name: go.string });
const listFilters: ReadonlySet<string> = new Set([
  "dangling",
  "driver",
  "id",
  "label",
  "name",
  "scope",
  "type",
]);
const pruneFilters: ReadonlySet<string> = new Set(["label", "label!", "until"]);

/** Docker's order of members, which is what `docker network inspect` prints. EnableIPv4 came with API 1.48. */
function networkBody(network: Network, connected: readonly ConnectedEndpoint[], version: ApiVersion): object {
  const { subnet, gateway } = network;
  return {
    Name: network.name,
    Id: network.id,
    Created: network.created,
    Scope: "local",
    Driver: network.driver,
    ...(atLeast(version, 1, 48) ? { EnableIPv4: true } : {}),
    EnableIPv6: false,
    IPAM: {
      Driver: "default",
      Options: null,
      Config: subnet === undefined ? [] : [{ Subnet: subnet, Gateway: gateway }],
    },
    Internal: false,
    Attachable: false,
    Ingress: false,
    ConfigFrom: { Network: "" },
    ConfigOnly: false,
    Containers: Object.fromEntries(connected.map((entry) => [entry.containerId, endpointBody(entry)])),
    Options: network.options,
    Labels: {},
  };
}

function endpointBody({ containerName, endpoint }: ConnectedEndpoint): object {
  return {
    Name: containerName,
    EndpointID: endpoint.endpointId,
    MacAddress: endpoint.macAddress,
    IPv4Address: endpoint.ipAddress === "" ? "" : `${endpoint.ipAddress}/${endpoint.prefixLength}`,
    IPv6Address: "",
  };
}

function inspect(engine: NetworkEngine, exchange: Exchange): void {
  const name = exchange.params["id"]!;
  const { network, connected } = engine.inspect(name);
  const scope = exchange.query.get("scope") ?? "";
  if (scope !== "" && scope !== "local") {
    throw new EngineError("notFound", `network ${name} not found`, { code: "no-such-network" });
  }
  exchange.sendJson(200, networkBody(network, connected, exchange.apiVersion));
}

/** The routes of networks (Engine API, tag Network). */
export function networkRoutes(engine: NetworkEngine): Route[] {
  const list = (exchange: Exchange): void => {
    const networks = engine.list(parseFilters(exchange.query.get("filters"), listFilters));
    // As in Docker, a list names no containers.
    exchange.sendJson(
      200,
      networks.map((network) => networkBody(network, [], exchange.apiVersion)),
    );
  };
  return [
    { method: "GET", pattern: "/networks", handler: list },
    { method: "GET", pattern: "/networks/", handler: list },
    { method: "GET", pattern: "/networks/{id}", handler: (exchange) => inspect(engine, exchange) },
    {
      method: "POST",
      pattern: "/networks/create",
      handler: async (exchange) => engine.create((await exchange.json(createBody)).Name),
    },
    {
      method: "POST",
      pattern: "/networks/prune",
      handler: (exchange) => {
        parseFilters(exchange.query.get("filters"), pruneFilters);
        const { deleted } = engine.prune();
        exchange.sendJson(200, { NetworksDeleted: deleted.length === 0 ? null : deleted });
      },
    },
    {
      method: "POST",
      pattern: "/networks/{id}/connect",
      handler: (exchange) => engine.connect(exchange.params["id"]!),
    },
    {
      method: "POST",
      pattern: "/networks/{id}/disconnect",
      handler: (exchange) => engine.disconnect(exchange.params["id"]!),
    },
    {
      method: "DELETE",
      pattern: "/networks/{id}",
      handler: (exchange) => engine.remove(exchange.params["id"]!),
    },
  ];
}
