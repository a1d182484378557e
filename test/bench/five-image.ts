import assert from "node:assert/strict";
import { pushLayout } from "../peers/images.ts";
import { fiveLayerLayout } from "./pull-image.ts";
import type { BenchSide } from "./sides.ts";

const prepared = new Set<string>();

/** Every side gets the five-layer image from the registry beside it. */
export function prepareFive(sides: readonly BenchSide[]): void {
  const { path } = fiveLayerLayout();
  for (const side of sides) {
    if (prepared.has(side.socket)) continue;
    pushLayout(path, fiveImage(side), { netnsOf: side.netnsOf });
    const pulled = side.cli("pull", "-q", fiveImage(side));
    assert.equal(pulled.status, 0, `${side.name}: ${pulled.stderr}`);
    prepared.add(side.socket);
  }
}

export const fiveImage = (side: BenchSide): string => `${side.registry.address}/five:latest`;
