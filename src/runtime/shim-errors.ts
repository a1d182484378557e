import { constants } from "node:os";
import { EngineError } from "#base/errors.ts";
import type { PortReservation } from "./shim.ts";
import { type Frame, tags } from "./shim-protocol.ts";

/** A port that somebody else holds. The network's `portInUse` says it in Docker's words, with the endpoint's name. */
export class PortReservationError extends EngineError {
  readonly reservation: PortReservation;

  constructor(reservation: PortReservation) {
    const { address, port } = reservation;
    super("system", `Bind for ${address}:${port} failed: port is already allocated`, { code: "port-in-use" });
    this.name = "PortReservationError";
    this.reservation = reservation;
  }
}

const errnoNames = new Map<number, string>(
  Object.entries(constants.errno).map(([name, value]) => [value, name]),
);

/** The name of an errno that came over the wire. */
export function errnoNameOf(errno: number): string {
  return errnoNames.get(errno) ?? `E${errno}`;
}

/** A FAILED answer to a launch. */
export function launchError(frame: Frame, ports: readonly PortReservation[]): EngineError {
  const text = frame.text(tags.text);
  const errno = errnoNameOf(frame.number(tags.errno));
  if (frame.text(tags.stage) === "port") {
    const taken = ports.find((port) => formatPort(port) === text);
    if (taken !== undefined && errno === "EADDRINUSE") return new PortReservationError(taken);
    return new EngineError("system", `Bind for ${text} failed: ${errno}`, { code: errno });
  }
  return new EngineError("system", `failed to prepare the container: ${text}`, { code: errno });
}

/** A reservation as the shim parses it: `tcp 0.0.0.0 80`. An empty address is every IPv4 address. */
export function formatPort(port: PortReservation): string {
  return `${port.protocol} ${port.address === "" ? "0.0.0.0" : port.address} ${port.port}`;
}

/** A FAILED answer to a request on the control channel. */
export function requestError(frame: Frame): EngineError {
  const errno = errnoNameOf(frame.number(tags.errno));
  if (errno === "ESRCH") {
    return new EngineError("conflict", "process already finished", { code: "ESRCH" });
  }
  return new EngineError("system", frame.text(tags.text), { code: errno });
}
