import { getgroups, getuid } from "node:process";
import { type Command, ExitError, noArguments } from "./command.ts";
import type { CliContext } from "./context.ts";
import { diskFindings, type Finding, HostFiles, hostFindings, socketFinding } from "./doctor-checks.ts";
import { errorText } from "./error-text.ts";
import { resolveTarget } from "./global-options.ts";
import type { ServerInfo } from "./info-text.ts";
import { sanitizeCell } from "./sanitize.ts";

const defaultDataRoot = "/var/lib/skiff";

/** `system doctor`: what is right and wrong with this machine, and what to do about it. Status 1 where something fails. */
export const doctor: Command = {
  usage: "",
  description:
    "Look at this machine: kernel, cgroups, confinement, firewall, runtime, disk, permissions and the daemon, and say what\nto do about what is missing. It needs no daemon, and changes nothing.",
  flags: [],
  args: noArguments,
  run: async (context) => {
    const files = new HostFiles();
    const { findings, info } = await askDaemon(context, files);
    const all = [
      ...hostFindings(files),
      ...findings,
      ...diskFindings(files, info?.DockerRootDir ?? defaultDataRoot),
    ];
    const mark = { ok: "ok  ", warn: "WARN", fail: "FAIL" } as const;
    for (const { topic, state, found, advice } of all) {
      context.print(sanitizeCell(`${mark[state]}  ${topic}: ${found}`));
      if (advice !== undefined) context.print(sanitizeCell(`      ${advice}`));
    }
    const failed = all.filter(({ state }) => state === "fail").length;
    const warned = all.filter(({ state }) => state === "warn").length;
    context.print("");
    context.print(
      failed + warned === 0
        ? "Nothing is wrong."
        : `${failed} ${failed === 1 ? "failure" : "failures"}, ${warned} ${warned === 1 ? "warning" : "warnings"}`,
    );
    return failed > 0 ? 1 : 0;
  },
};

/** The socket and what the daemon behind it says about itself. */
async function askDaemon(
  context: CliContext,
  files: HostFiles,
): Promise<{ findings: readonly Finding[]; info?: ServerInfo }> {
  const path = localSocket(context);
  const user = { uid: getuid?.() ?? 0, groups: getgroups?.() ?? [] };
  const socket = path === undefined ? undefined : socketFinding(files, path, user);
  const findings = socket === undefined ? [] : [socket];
  if (socket?.state === "fail") return { findings };
  try {
    const info = await context.client.json<ServerInfo>("GET", "/info");
    return { findings: [...findings, ...daemonFindings(info)], info };
  } catch (error) {
    if (error instanceof ExitError) throw error;
    const advice = "look at its log: journalctl -u skiff; is it running? systemctl status skiff";
    return {
      findings: [...findings, { topic: "daemon", state: "fail", found: errorText(error), advice }],
    };
  }
}

/** The path of the daemon's socket; undefined where the daemon is reached in another way. */
function localSocket(context: CliContext): string | undefined {
  const { env, program, configDirectory, contextName } = context;
  const { host } = resolveTarget({ flags: context.globals, env, program, configDirectory, contextName });
  return host.startsWith("unix://") ? host.slice("unix://".length) : undefined;
}

/** Its warnings, and the rules it had to make in the host's own firewall. */
export function daemonFindings(info: ServerInfo): Finding[] {
  const found = `${info.ServerVersion}, ${info.DefaultRuntime}, cgroups by ${info.CgroupDriver} (version ${info.CgroupVersion})`;
  const rules = (info.DriverStatus ?? []).filter(([name]) => name === "Host firewall rule");
  return [
    { topic: "daemon", state: "ok", found },
    {
      topic: "firewall",
      state: "ok",
      found:
        rules.length === 0
          ? "forwards what containers send; no rule in the host's chains was needed"
          : `drops what is forwarded; ${rules.length} accept rules are in its chains: ${rules.map(([, rule]) => rule).join("; ")}`,
    },
    ...(info.Warnings ?? []).map(
      (warning): Finding => ({
        topic: "daemon",
        state: "warn",
        found: warning.replace(/^WARNING: /, ""),
        advice: "containers run; limits or confinement of this kind are not there",
      }),
    ),
  ];
}
