import type { ProxyTurn } from "../integration/push-proxy.ts";
import type { Hooks, ImageKillLab, Mortem, Outcome } from "./image-kill-lab.ts";
import {
  type Operation,
  type Prepare,
  prepareBuild,
  prepareCommit,
  prepareLoad,
  preparePush,
} from "./image-kill-operations.ts";

/** Where in an operation the kill comes, and by what is seen afterwards whether it did come there. */
export interface Phase {
  readonly name: string;
  readonly prepare: Prepare;
  /** Watches for the moment and calls `kill` in it. `aim`, above 0 and below 1: early or late in it. */
  arm(lab: ImageKillLab, kill: (delayMs?: number) => void, aim: number): Armed;
  hit(seen: { before: Mortem; after: Mortem; outcome: Outcome; operation: Operation }): boolean;
}

export interface Armed extends Hooks, Disposable {}

const nothing = { [Symbol.dispose]: () => {} };

/** Waits until a directory or file of this kind is there: half of a body was sent, and no more comes. In vain it ends too. */
function onceSpooled(lab: ImageKillLab, kind: RegExp, kill: () => void): Armed {
  return {
    halfSent: () => {
      const deadline = performance.now() + 10_000;
      const look = (): void => {
        const isThere = lab.mortem().temporary.some((name) => kind.test(name));
        if (isThere || performance.now() > deadline) kill();
        else setTimeout(look, 5);
      };
      look();
    },
    ...nothing,
  };
}

const layerName = /^(?:c-)?[0-9a-f]{64}$/;

/** From a layer's last name to the row of an image that has it: what is made durable, and recorded. */
function recording(aimMs: number): Pick<Phase, "arm" | "hit"> {
  return {
    arm: (lab, kill, aim) => lab.onNew("overlay2", layerName, () => kill(aim * aimMs)),
    hit: ({ before, after }) => {
      const used = new Set([...after.images.values()].flatMap(({ layers }) => layers.map(({ key }) => key)));
      return after.layerFolders.some((key) => !before.layerFolders.includes(key) && !used.has(key));
    },
  };
}

const staging: Pick<Phase, "arm" | "hit"> = {
  arm: (lab, kill, aim) => lab.onNew("overlay2/tmp", /./, () => kill(aim * 10)),
  hit: ({ after }) => after.staging.length > 0,
};

function unlessWhole({ outcome, operation }: { outcome: Outcome; operation: Operation }): boolean {
  return !operation.acknowledged(outcome);
}

const build: readonly Omit<Phase, "prepare">[] = [
  {
    name: "the context arrives",
    arm: (lab, kill) => onceSpooled(lab, /^build-/, kill),
    hit: ({ after, outcome }) => after.temporary.length > 0 && !outcome.text.includes("Step 1/"),
  },
  { name: "COPY packs its layer", ...staging },
  { name: "a step's layer is recorded", ...recording(4) },
  {
    name: "RUN runs",
    arm: (_lab, kill, aim) => ({
      onOutput: (text) => {
        if (/"began \d+\\n/.test(text)) kill(aim * 150);
      },
      ...nothing,
    }),
    hit: ({ after }) => after.steps > 0 && after.staging.length === 0,
  },
  {
    name: "the result is tagged",
    arm: (_lab, kill) => ({
      onOutput: (text) => {
        if (text.includes("Successfully built")) kill();
      },
      ...nothing,
    }),
    hit: (seen) =>
      seen.outcome.text.includes("Successfully built") &&
      !seen.outcome.text.includes("Successfully tagged") &&
      unlessWhole(seen),
  },
];

const commit: readonly Omit<Phase, "prepare">[] = [
  { name: "the changes are packed", ...staging },
  { name: "layer and image are recorded", ...recording(3) },
];

const load: readonly Omit<Phase, "prepare">[] = [
  {
    name: "the archive arrives",
    arm: (lab, kill) => onceSpooled(lab, /^load-/, kill),
    hit: ({ after }) =>
      after.temporary.some((name) => name.startsWith("load-")) && after.staging.length === 0,
  },
  { name: "layers are unpacked", ...staging },
  { name: "layers and image are recorded", ...recording(4) },
];

function script(lab: ImageKillLab, on: (turn: ProxyTurn) => boolean): Armed {
  lab.proxy.script = on;
  return {
    [Symbol.dispose]: () => {
      lab.proxy.script = () => false;
    },
  };
}

const isManifest = ({ method, path }: ProxyTurn): boolean => method === "PUT" && path.includes("/manifests/");
const isLayer = ({ method, path, request }: ProxyTurn): boolean =>
  method === "PUT" && path.includes("/uploads/") && Number(request.headers["content-length"]) > 100_000;

const push: readonly Omit<Phase, "prepare">[] = [
  {
    name: "a layer is compressed",
    arm: (lab, kill, aim) => lab.onNew("tmp", /^pack-/, () => kill(aim * 40)),
    hit: ({ after }) => after.temporary.some((name) => name.startsWith("pack-")),
  },
  {
    name: "a blob is sent",
    arm: (lab, kill, aim) =>
      script(lab, (turn) => {
        if (!isLayer(turn)) return false;
        let length = 0;
        turn.request.on("data", (chunk: Buffer) => {
          length += chunk.length;
          if (length > aim * Number(turn.request.headers["content-length"])) kill();
        });
        turn.forward();
        return true;
      }),
    hit: unlessWhole,
  },
  {
    name: "the manifest is on its way",
    arm: (lab, kill) =>
      script(lab, (turn) => {
        if (!isManifest(turn)) return false;
        // It never arrives: all blobs are there, and no tag may be.
        kill();
        return true;
      }),
    hit: unlessWhole,
  },
  {
    name: "the tag is there and not known here",
    arm: (lab, kill) =>
      script(lab, (turn) => {
        if (!isManifest(turn)) return false;
        turn.forward({ answer: () => kill() });
        return true;
      }),
    hit: unlessWhole,
  },
];

const named = (operation: string, prepare: Prepare, phases: readonly Omit<Phase, "prepare">[]): Phase[] =>
  phases.map((phase) => ({ ...phase, prepare, name: `${operation}: ${phase.name}` }));

export const phases: readonly Phase[] = [
  ...named("build", prepareBuild, build),
  ...named("commit", prepareCommit, commit),
  ...named("load", prepareLoad, load),
  ...named("push", preparePush, push),
];
