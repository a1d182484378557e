/** The instructions of a Dockerfile as data. Words are as written: variables are replaced when a step runs. */
import type { HealthConfig } from "#wire/oci-image.ts";
import type { Position } from "./dockerfile-error.ts";
import type { Directives, Heredoc } from "./dockerfile-lines.ts";

/** A command line in either form. */
export type CommandLine =
  | { readonly form: "exec"; readonly words: readonly string[] }
  | { readonly form: "shell"; readonly text: string; readonly heredocs: readonly Heredoc[] };

export interface RunMount {
  readonly type: "bind" | "cache" | "tmpfs" | "secret" | "ssh";
  readonly target: string;
  readonly source: string;
  /** Stage, image, or "" for the context. */
  readonly from: string;
  readonly readOnly: boolean;
  readonly id: string;
  readonly sharing: "shared" | "private" | "locked";
  /** Octal, undefined for the type's own default. */
  readonly mode: number | undefined;
  readonly uid: number;
  readonly gid: number;
  readonly sizeBytes: number;
  readonly required: boolean;
  /** Name of a variable that gets a secret's value. */
  readonly env: string;
}

export interface CopyFields {
  readonly sources: readonly string[];
  readonly target: string;
  readonly heredocs: readonly Heredoc[];
  readonly chown: string;
  readonly chmod: string;
  readonly link: boolean;
  readonly parents: boolean;
  readonly excludes: readonly string[];
}

export type NameValue = readonly [name: string, value: string];

interface Common {
  /** As `Step n/m :` shows it. */
  readonly original: string;
  readonly position: Position;
}

export type Instruction = Common &
  (
    | {
        readonly kind: "run";
        readonly command: CommandLine;
        readonly mounts: readonly RunMount[];
        readonly network: "default" | "none" | "host";
        readonly security: "sandbox" | "insecure";
      }
    | ({ readonly kind: "copy"; readonly from: string } & CopyFields)
    | ({
        readonly kind: "add";
        readonly checksum: string;
        readonly keepGitDir: boolean;
        /** undefined: local archives are unpacked, remote ones are not. */
        readonly unpack: boolean | undefined;
      } & CopyFields)
    | { readonly kind: "cmd" | "entrypoint"; readonly command: CommandLine }
    | { readonly kind: "env" | "label"; readonly pairs: readonly NameValue[]; readonly literal: boolean }
    | {
        readonly kind: "arg";
        readonly args: readonly { readonly name: string; readonly value: string | undefined }[];
      }
    | { readonly kind: "maintainer" | "user" | "stopsignal"; readonly value: string }
    | { readonly kind: "workdir"; readonly value: string }
    | { readonly kind: "expose"; readonly ports: readonly string[] }
    | { readonly kind: "volume"; readonly paths: readonly string[] }
    | { readonly kind: "shell"; readonly words: readonly string[] }
    | { readonly kind: "healthcheck"; readonly health: HealthConfig }
    | { readonly kind: "onbuild"; readonly trigger: string }
  );

export type ArgInstruction = Extract<Instruction, { kind: "arg" }>;

export interface Stage extends Common {
  /** As written; variables are replaced with the global arguments. */
  readonly base: string;
  readonly platform: string;
  /** Lower case, "" without `AS`. */
  readonly name: string;
  readonly instructions: readonly Instruction[];
}

export interface Dockerfile {
  readonly file: string;
  readonly lines: readonly string[];
  readonly directives: Directives;
  readonly globalArgs: readonly ArgInstruction[];
  readonly stages: readonly Stage[];
  readonly warnings: readonly string[];
}
