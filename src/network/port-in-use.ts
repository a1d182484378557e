import { EngineError } from "#base/errors.ts";

/** Docker's words for a published port that somebody holds; `endpoint` is the container's name. */
export function portInUse(containerName: string, hostAddress: string, port: number): EngineError {
  const address = hostAddress === "" ? "0.0.0.0" : hostAddress;
  return new EngineError(
    "system",
    `driver failed programming external connectivity on endpoint ${containerName}: Bind for ${address}:${port} failed: port is already allocated`,
    { code: "port-in-use" },
  );
}
