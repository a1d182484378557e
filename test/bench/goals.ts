export interface Goal {
  /** Our median over the peer's, or our median alone where there is no peer to be measured against. */
  readonly max: number;
  readonly of?: string;
}

/** What is to be reached, by the label of the figures. */
export const goals: ReadonlyMap<string, Goal> = new Map<string, Goal>([
  ["run-cli", { max: 0.2, of: "dockerd" }],
  ["start-api", { max: 0.1, of: "dockerd" }],
  ["start-api paced", { max: 0.1, of: "dockerd" }],
  ["start-none", { max: 0.15, of: "dockerd" }],
  ["start-none paced", { max: 0.15, of: "dockerd" }],
  ["exec api", { max: 0.25, of: "dockerd" }],
  ["exec cli", { max: 0.55, of: "dockerd" }],
  ["pull-5", { max: 0.5, of: "dockerd" }],
  ["stop-rm (50)", { max: 0.3, of: "dockerd" }],
  ["memory idle", { max: 1, of: "dockerd" }],
  ["memory idle as if alone", { max: 1, of: "dockerd" }],
  ["memory a container", { max: 1 }],
  ["flushes a container", { max: 4 }],
]);
