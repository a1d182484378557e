import { availableParallelism } from "node:os";
import type { Check } from "./check.ts";
import { containerChecks } from "./checks-containers.ts";
import { installChecks, removalChecks } from "./checks-install.ts";
import { lifecycleChecks } from "./checks-lifecycle.ts";
import { ensureDisk } from "./disk.ts";
import { ensureEmulator, noEmulator } from "./emulator.ts";
import { Machine } from "./machine.ts";
import { makePayload } from "./payload.ts";

/**
 * `npm run vm`: a Debian 12 with systemd, pure cgroup v2 and AppArmor, emulated; the package is installed, used, restarted,
 * killed, upgraded, rebooted, removed and purged in it. `--quick`: the checks that a change most likely breaks.
 * `--keep-going`: does not stop at the first failure. Exit status 0 when all passed, or when no emulator can run.
 */
const quick = process.argv.includes("--quick");
const keepGoing = process.argv.includes("--keep-going");
const processors = Math.min(2, availableParallelism());

async function runChecks(
  machine: Machine,
  checks: readonly Check[],
): Promise<{ passed: number; failed: string[] }> {
  let passed = 0;
  const failed: string[] = [];
  for (const check of checks) {
    const started = performance.now();
    const seconds = (): string => `${((performance.now() - started) / 1000).toFixed(1)} s`;
    try {
      await check.run(machine);
      passed += 1;
      console.log(`✔ ${check.name} (${seconds()})`);
    } catch (error) {
      failed.push(check.name);
      console.log(
        `✖ ${check.name} (${seconds()})\n${error instanceof Error ? (error.stack ?? error.message) : error}`,
      );
      if (!keepGoing) break;
    }
  }
  return { passed, failed };
}

async function main(): Promise<number> {
  const started = performance.now();
  const minutes = (): string => `${((performance.now() - started) / 60_000).toFixed(1)} min`;
  const reason = noEmulator();
  if (reason !== undefined) {
    console.log(`vm: skipped: ${reason}`);
    return 0;
  }
  const emulator = ensureEmulator();
  const disk = ensureDisk();
  using payload = await makePayload();
  console.log(`vm: emulator, disk and packages are there (${minutes()})`);
  await using machine = await Machine.start({ emulator, disk, payload: payload.path, processors });
  console.log(`vm: booted (${minutes()})`);
  const all = [...installChecks, ...containerChecks, ...lifecycleChecks, ...removalChecks];
  const checks = quick ? all.filter((check) => check.quick) : all;
  const { passed, failed } = await runChecks(machine, checks);
  const left = checks.length - passed - failed.length;
  console.log(
    `vm: ${passed} passed, ${failed.length} failed${left > 0 ? `, ${left} not run` : ""} of ${checks.length} checks (${minutes()})`,
  );
  return failed.length > 0 ? 1 : 0;
}

process.exitCode = await main();
