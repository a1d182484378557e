import { EngineError } from "#base/errors.ts";

/** Docker's words for a published port that somebody holds: the endpoint's name is the container's, then its id. */
export function portInUse(
  containerName: string,
  hostAddress: string,
  port: number,
  endpointId?: string,
): EngineError {
  const address = hostAddress === "" ? "0.0.0.0" : hostAddress;
  return portFailure(
    containerName,
    endpointId,
    `Bind for ${address}:${port} failed: port is already allocated`,
  );
}

/** A range, or all ephemeral ports, are taken. */
export function portsExhausted(containerName: string, endpointId?: string): EngineError {
  return portFailure(containerName, endpointId, "all ports are allocated");
}

function portFailure(containerName: string, endpointId: string | undefined, what: string): EngineError {
  const endpoint = endpointId === undefined ? containerName : `${containerName} (${endpointId})`;
  return new EngineError(
    "system",
    `driver failed programming external connectivity on endpoint ${endpoint}: ${what}`,
    { code: "port-in-use" },
  );
}
