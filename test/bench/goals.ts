export interface Goal {
  /** Our median over the peer's, or our median alone where there is no peer to be measured against. */
  readonly max: number;
  readonly of?: string;
  /** Against further peers, where they take part. */
  readonly alsoMax?: Readonly<Record<string, number>>;
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
  ["pull-5", { max: 0.35, of: "dockerd", alsoMax: { podman: 0.45 } }],
  ["pull-big", { max: 0.5, of: "dockerd" }],
  ["pull-many", { max: 0.4, of: "dockerd" }],
  ["push pulled", { max: 0.08, of: "dockerd" }],
  ["push built", { max: 0.3, of: "dockerd" }],
  ["build-noop", { max: 0.3, of: "dockerd" }],
  ["build-steps", { max: 0.3, of: "dockerd" }],
  ["build-copy 300 MB", { max: 0.4, of: "dockerd" }],
  ["build-copy 1000 MB", { max: 0.4, of: "dockerd" }],
  ["build-copy 5,000 files", { max: 0.4, of: "dockerd" }],
  ["save", { max: 0.5, of: "dockerd" }],
  ["load", { max: 0.5, of: "dockerd" }],
  ["load own", { max: 0.5, of: "dockerd" }],
  ["commit", { max: 0.5, of: "dockerd" }],
  ["export", { max: 0.5, of: "dockerd" }],
  ["registry push 10 MB", { max: 1, of: "docker-registry" }],
  ["registry pull 10 MB", { max: 1, of: "docker-registry" }],
  ["registry push 100 MB", { max: 1, of: "docker-registry" }],
  ["registry pull 100 MB", { max: 1, of: "docker-registry" }],
  // Half as fast again.
  ["registry manifest", { max: 0.667, of: "docker-registry" }],
  ["stop-rm (50)", { max: 0.3, of: "dockerd" }],
  ["memory idle", { max: 1, of: "dockerd" }],
  ["memory idle as if alone", { max: 1, of: "dockerd" }],
  ["memory a container", { max: 1 }],
  ["flushes a container", { max: 4 }],
]);
