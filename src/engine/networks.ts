import { EngineError } from "#base/errors.ts";
import type { EndpointSettings, NetworkDescription, NetworkManager } from "#network/network.ts";
import { type Filters, filterPattern, matchLabels } from "#wire/filters.ts";

/** A running container's places on networks. */
export interface ConnectedContainer {
  readonly id: string;
  /** Without the leading slash. */
  readonly name: string;
  readonly endpoints: readonly EndpointSettings[];
}

export interface NetworkEngineDeps {
  readonly networks: NetworkManager;
  readonly runningContainers: () => Iterable<ConnectedContainer>;
}

export interface ConnectedEndpoint {
  readonly containerId: string;
  readonly containerName: string;
  readonly endpoint: EndpointSettings;
}

export interface InspectedNetwork {
  readonly network: NetworkDescription;
  /** By container id. */
  readonly connected: readonly ConnectedEndpoint[];
}

/** Use cases of networks. User-defined ones come later: what would make or change one is refused. */
export interface NetworkEngine {
  list(filters: Filters): NetworkDescription[];
  /** By name, id or unique prefix, with the running containers on it. */
  inspect(nameOrId: string): InspectedNetwork;
  create(name: string): never;
  remove(nameOrId: string): never;
  connect(nameOrId: string): never;
  disconnect(nameOrId: string): never;
  /** Unused user-defined networks: there are none. */
  prune(): { readonly deleted: readonly string[] };
}

export function createNetworkEngine({ networks, runningContainers }: NetworkEngineDeps): NetworkEngine {
  const connectedTo = ({ id }: NetworkDescription): ConnectedEndpoint[] =>
    [...runningContainers()].flatMap((container) =>
      container.endpoints
        .filter((endpoint) => endpoint.networkId === id)
        .map((endpoint) => ({ containerId: container.id, containerName: container.name, endpoint })),
    );
  const refuseChange = (nameOrId: string, change: string): never => {
    networks.resolve(nameOrId);
    throw notYet(`${change} an existing container`);
  };
  return {
    list: (filters) => networks.list().filter((network) => matches(network, filters)),
    inspect: (nameOrId) => {
      const network = networks.resolve(nameOrId);
      const connected = connectedTo(network).sort((a, b) => (a.containerId < b.containerId ? -1 : 1));
      return { network, connected };
    },
    create: (name) => {
      if (networks.list().some((network) => network.name === name)) {
        throw new EngineError("forbidden", `operation is not permitted on predefined ${name} network`, {
          code: "predefined-network",
        });
      }
      throw notYet(`creating the network ${JSON.stringify(name.slice(0, 128))}`);
    },
    remove: (nameOrId) => {
      const { name } = networks.resolve(nameOrId);
      throw new EngineError("forbidden", `${name} is a pre-defined network and cannot be removed`, {
        code: "predefined-network",
      });
    },
    connect: (nameOrId) => refuseChange(nameOrId, "connecting"),
    disconnect: (nameOrId) => refuseChange(nameOrId, "disconnecting"),
    prune: () => ({ deleted: [] }),
  };
}

function notYet(what: string): EngineError {
  return new EngineError(
    "notImplemented",
    `${what} is not supported yet: there are the networks bridge, host and none, chosen when a container is created`,
    { code: "user-networks" },
  );
}

function matches(network: NetworkDescription, filters: Filters): boolean {
  const anyOf = (key: string, holds: (value: string) => boolean): boolean =>
    filters.get(key)?.some(holds) ?? true;
  return (
    anyOf("driver", (value) => network.driver === value) &&
    anyOf("name", (value) => filterPattern("name", value)(network.name)) &&
    anyOf("id", (value) => filterPattern("id", value)(network.id)) &&
    anyOf("scope", (value) => value === "local") &&
    anyOf("type", isPredefinedType) &&
    matchLabels(filters.get("label"), {}) &&
    // Docker never calls a predefined network dangling.
    anyOf("dangling", (value) => !isTrue(value))
  );
}

function isPredefinedType(value: string): boolean {
  if (value !== "builtin" && value !== "custom") {
    throw new EngineError("invalid", `invalid filter: 'type'='${value}'`, { code: "bad-filter" });
  }
  return value === "builtin";
}

function isTrue(value: string): boolean {
  if (value === "true" || value === "1") return true;
  if (value === "false" || value === "0") return false;
  throw new EngineError(
    "invalid",
    'invalid value for filter \'dangling\', must be "true" (or "1"), or "false" (or "0")',
    { code: "bad-filter" },
  );
}
