import { zeroTime } from "#base/clock.ts";
import type { ImageDetails } from "#engine/image-inspect.ts";
import type { ImageSummary } from "#engine/image-list.ts";
import type { ImageRunConfig } from "#wire/oci-image.ts";
import type { ApiVersion } from "./route.ts";

/** Shapes of image bodies, which differ between versions of the Engine API (its version history). */

const atLeast = (version: ApiVersion, minor: number): boolean => version.major > 1 || version.minor >= minor;

/** A row of `GET /images/json`. */
export function summaryShape(row: ImageSummary, version: ApiVersion): object {
  const nameless = row.tags.length === 0 && row.digests.length === 0;
  const legacy = !atLeast(version, 43);
  return {
    Containers: -1,
    Created: row.createdSeconds,
    Id: row.id,
    Labels: row.labels,
    ParentId: row.parentId,
    RepoDigests:
      legacy && nameless ? ["<none>@<none>"] : legacy && row.digests.length === 0 ? null : row.digests,
    RepoTags: legacy && nameless ? ["<none>:<none>"] : legacy && row.tags.length === 0 ? null : row.tags,
    SharedSize: row.sharedSizeBytes,
    Size: row.sizeBytes,
    ...(atLeast(version, 44) ? {} : { VirtualSize: row.sizeBytes }),
  };
}

/** `GET /images/{name}/json`. */
export function detailsShape(image: ImageDetails, version: ApiVersion): object {
  const legacyContainer = { Container: "", ContainerConfig: containerConfigShape({}) };
  const created = image.created ?? (atLeast(version, 44) ? undefined : zeroTime);
  return {
    Id: image.id,
    RepoTags: image.tags,
    RepoDigests: image.digests,
    Parent: image.parent,
    Comment: image.comment,
    ...(created === undefined ? {} : { Created: created }),
    ...(atLeast(version, 45) ? {} : legacyContainer),
    DockerVersion: image.dockerVersion,
    Author: image.author,
    Config: configShape(image.config, version),
    Architecture: image.architecture,
    ...(image.variant === "" ? {} : { Variant: image.variant }),
    Os: image.os,
    ...(image.osVersion === "" ? {} : { OsVersion: image.osVersion }),
    Size: image.sizeBytes,
    ...(atLeast(version, 44) ? {} : { VirtualSize: image.sizeBytes }),
    GraphDriver: { Data: image.driverData, Name: image.driver },
    RootFS: { Type: "layers", ...(image.diffIds.length === 0 ? {} : { Layers: image.diffIds }) },
    Metadata: { LastTagTime: image.lastTagTime },
  };
}

function configShape(config: ImageRunConfig | null, version: ApiVersion): object | null {
  if (config === null) return atLeast(version, 50) ? imageConfigShape({}) : null;
  return atLeast(version, 50) ? imageConfigShape(config) : containerConfigShape(config);
}

function orNull(list: readonly string[] | null | undefined): readonly string[] | null {
  return list === undefined || list === null ? null : list;
}

/** Fields that are left out when they are empty. */
function optionalFields(config: ImageRunConfig): object {
  return {
    ...(config.Healthcheck === undefined || config.Healthcheck === null
      ? {}
      : { Healthcheck: config.Healthcheck }),
    ...(config.ArgsEscaped === true ? { ArgsEscaped: true } : {}),
    ...(config.StopSignal === undefined || config.StopSignal === "" ? {} : { StopSignal: config.StopSignal }),
    ...(config.StopTimeout === undefined || config.StopTimeout === null
      ? {}
      : { StopTimeout: config.StopTimeout }),
    ...(config.Shell === undefined || config.Shell === null ? {} : { Shell: config.Shell }),
    ...(config.ExposedPorts === undefined || config.ExposedPorts === null
      ? {}
      : { ExposedPorts: config.ExposedPorts }),
  };
}

/** Up to API 1.49 an image's config has all the fields of a container's. */
function containerConfigShape(config: ImageRunConfig): object {
  return {
    Hostname: "",
    Domainname: "",
    User: config.User ?? "",
    AttachStdin: false,
    AttachStdout: false,
    AttachStderr: false,
    Tty: false,
    OpenStdin: false,
    StdinOnce: false,
    Env: orNull(config.Env),
    Cmd: orNull(config.Cmd),
    Image: "",
    Volumes: config.Volumes ?? null,
    WorkingDir: config.WorkingDir ?? "",
    Entrypoint: orNull(config.Entrypoint),
    OnBuild: orNull(config.OnBuild),
    Labels: config.Labels ?? null,
    ...optionalFields(config),
  };
}

function imageConfigShape(config: ImageRunConfig): object {
  return {
    User: config.User ?? "",
    Env: orNull(config.Env),
    Cmd: orNull(config.Cmd),
    Volumes: config.Volumes ?? null,
    WorkingDir: config.WorkingDir ?? "",
    Entrypoint: orNull(config.Entrypoint),
    OnBuild: orNull(config.OnBuild),
    Labels: config.Labels ?? null,
    ...optionalFields(config),
  };
}
