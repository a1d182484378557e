import { spawn } from "node:child_process";
import { once } from "node:events";

/** A process beside the daemon that does nothing but measure its own event loop: what the machine does to everybody. */
export interface IdleLoop extends Disposable {
  /** p99 of the delay since it was asked before, in milliseconds. */
  p99Ms(): Promise<number>;
}

const script = `
  const delays = require("node:perf_hooks").monitorEventLoopDelay({ resolution: 5 });
  delays.enable();
  process.stdin.on("data", () => {
    process.stdout.write(String(Math.max(0, delays.percentile(99) / 1e6 - 5)) + "\\n");
    delays.reset();
  });
`;

export function startIdleLoop(): IdleLoop {
  const child = spawn(process.execPath, ["-e", script], { stdio: ["pipe", "pipe", "inherit"] });
  return {
    p99Ms: async () => {
      child.stdin.write("\n");
      const [line] = (await once(child.stdout, "data")) as [Buffer];
      return Number(line.toString());
    },
    [Symbol.dispose]: () => child.kill("SIGKILL"),
  };
}
