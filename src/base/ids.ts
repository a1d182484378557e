import { randomBytes } from "node:crypto";

/** 64 lower-case hexadecimal digits. */
export type ContainerId = string & { readonly __brand: "ContainerId" };
export type ExecId = string & { readonly __brand: "ExecId" };
export type NetworkId = string & { readonly __brand: "NetworkId" };

const idPattern = /^[0-9a-f]{64}$/;

export function newId(): string {
  return randomBytes(32).toString("hex");
}

export function newContainerId(): ContainerId {
  // Docker never gives an id whose short form is all digits: a host name made of it would read as a number.
  for (;;) {
    const id = newId();
    if (!/^[0-9]{12}/.test(id)) return id as ContainerId;
  }
}

export function newExecId(): ExecId {
  return newId() as ExecId;
}

export function isId(text: string): boolean {
  return idPattern.test(text);
}

/** The 12 digits that tables and host names show. */
export function shortId(id: string): string {
  const colon = id.indexOf(":");
  return id.slice(colon + 1, colon + 13);
}
