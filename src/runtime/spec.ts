import type { HostInfo } from "#sys/hostinfo.ts";
import type {
  OciCapabilities,
  OciDevice,
  OciDeviceRule,
  OciMount,
  OciNamespace,
  OciNamespaceType,
  OciProcess,
  OciRlimit,
  OciSeccomp,
  OciSpec,
} from "#wire/oci-runtime.ts";
import type { Capability } from "./capabilities.ts";
import { containerEnv } from "./env.ts";
import { ociResources, type ResourceSupport } from "./resources.ts";
import type { NamespaceMode, SandboxRequest } from "./runtime.ts";
import { defaultDeviceRules, privilegedDeviceRules, type SecurityProfile } from "./security-profile.ts";
import { initPath, rootPropagation } from "./spec-mounts.ts";
import { ociSysctls } from "./sysctls.ts";
import type { ResolvedUser } from "./user.ts";

/** Everything that `buildSpec` needs, resolved: it looks at nothing itself. */
export interface SpecInput {
  readonly request: SandboxRequest;
  readonly profile: SecurityProfile;
  readonly user: ResolvedUser;
  /** After preflight: resolved targets and directory. */
  readonly mounts: readonly OciMount[];
  readonly workingDir: string;
  readonly rlimits: readonly OciRlimit[];
  readonly devices: readonly OciDevice[];
  readonly deviceRules: readonly OciDeviceRule[];
  readonly host: Pick<HostInfo, "oomScoreAdj">;
  readonly support: ResourceSupport;
  readonly cgroupVersion: "1" | "2";
  readonly rootfsPath: string;
  readonly cgroupsPath: string;
  readonly annotations?: Readonly<Record<string, string>>;
  /** How the filter reaches the runtime: compiled for crun, as rules for runc, undefined for unconfined. */
  readonly seccomp: { readonly bpfBase64: string } | { readonly rules: OciSeccomp } | undefined;
}

/** crun reads a compiled filter from here when the spec has no `linux.seccomp`. */
export const seccompAnnotation = "run.oci.seccomp_bpf_data";

/**
 * Docker's rule: the set bounds everything; only root has it permitted and effective from the start. Inheritable and
 * ambient stay empty, so that a program gains nothing from files (CVE-2022-24769).
 */
export function ociCapabilities(capabilities: readonly Capability[], uid: number): OciCapabilities {
  const effective = uid === 0 ? capabilities : [];
  return { bounding: capabilities, effective, permitted: effective, inheritable: [], ambient: [] };
}

/**
 * 0 unless asked, as Docker sets it (a daemon may protect itself with less); but where the daemon itself has more, that:
 * lowering needs a capability that it may lack, and nobody asked for it.
 */
export function processOomScore(
  request: Pick<SandboxRequest, "oomScoreAdj">,
  host: Pick<HostInfo, "oomScoreAdj">,
): number {
  return request.oomScoreAdj === 0 ? Math.max(0, host.oomScoreAdj) : request.oomScoreAdj;
}

function buildProcess(input: SpecInput): OciProcess {
  const { request, profile, user } = input;
  const size = request.terminal ? request.terminalSize : undefined;
  return {
    terminal: request.terminal,
    ...(size === undefined ? {} : { consoleSize: { height: size.rows, width: size.columns } }),
    user: { uid: user.uid, gid: user.gid, additionalGids: user.additionalGids },
    args: request.init ? [initPath, "--", ...request.args] : request.args,
    env: containerEnv({ ...request, home: user.home }),
    cwd: input.workingDir,
    capabilities: ociCapabilities(profile.capabilities, user.uid),
    ...(input.rlimits.length === 0 ? {} : { rlimits: input.rlimits }),
    noNewPrivileges: profile.noNewPrivileges,
    oomScoreAdj: processOomScore(request, input.host),
    ...(profile.apparmor === undefined ? {} : { apparmorProfile: profile.apparmor }),
  };
}

function namespaces(request: SandboxRequest, cgroupVersion: "1" | "2"): OciNamespace[] {
  const list: OciNamespace[] = [{ type: "mount" }];
  const add = (type: OciNamespaceType, mode: NamespaceMode): void => {
    if (mode.kind === "path") list.push({ type, path: mode.path });
    else if (mode.kind === "private") list.push({ type });
  };
  add("network", request.network);
  add("uts", request.utsNamespace);
  add("pid", request.pidNamespace);
  add("ipc", request.ipcNamespace);
  // Docker's default on version 1 is the host's, and the runtimes' version 1 mounts differ in a private one.
  if (cgroupVersion === "2") add("cgroup", request.cgroupNamespace);
  return list;
}

/** The OCI runtime spec of a container, in Docker's way (the defaults: docs/internals/security-profile.md). */
export function buildSpec(input: SpecInput): OciSpec {
  const { request, profile, seccomp } = input;
  const sysctl = ociSysctls(request.sysctls, {
    network: request.network,
    uts: request.utsNamespace,
    domainname: request.domainname,
  });
  const baseRules = request.privileged ? privilegedDeviceRules : defaultDeviceRules;
  const propagation = rootPropagation(request.mounts);
  const annotations = {
    ...input.annotations,
    ...(seccomp !== undefined && "bpfBase64" in seccomp ? { [seccompAnnotation]: seccomp.bpfBase64 } : {}),
  };
  return {
    ociVersion: "1.0.2",
    process: buildProcess(input),
    root: { path: input.rootfsPath, readonly: request.readonlyRootfs },
    ...(request.utsNamespace.kind === "private" ? { hostname: request.hostname } : {}),
    mounts: input.mounts,
    ...(Object.keys(annotations).length === 0 ? {} : { annotations }),
    linux: {
      namespaces: namespaces(request, input.cgroupVersion),
      cgroupsPath: input.cgroupsPath,
      resources: ociResources(request.resources, input.support, [...baseRules, ...input.deviceRules]),
      devices: input.devices,
      sysctl,
      maskedPaths: profile.maskedPaths,
      readonlyPaths: profile.readonlyPaths,
      ...(seccomp !== undefined && "rules" in seccomp ? { seccomp: seccomp.rules } : {}),
      ...(propagation === undefined ? {} : { rootfsPropagation: propagation }),
    },
  };
}
