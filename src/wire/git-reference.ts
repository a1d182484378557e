import { posix } from "node:path";
import { EngineError } from "#base/errors.ts";

/** A git repository as a build names it: `https://host/repository.git#ref:directory`. */
export interface GitReference {
  /** What git is given: http, https, git, ssh, or `user@host:path`. */
  readonly remote: string;
  /** Branch, tag or commit; "" for the repository's HEAD. */
  readonly ref: string;
  /** Of the repository, without slashes at its ends; "" for its root. */
  readonly directory: string;
}

const lengthMax = 4096;

function invalid(message: string): EngineError {
  return new EngineError("invalid", message, { code: "git-reference" });
}

/** Whether a text names a git repository (Docker: `git://`, `git@`, `ssh://`, `github.com/`, http URLs that end in `.git`). */
export function isGitReference(text: string): boolean {
  return (
    /^(?:git@|git:\/\/|ssh:\/\/|github\.com\/)/i.test(text) || /^https?:\/\/[^#]*\.git(?:#.*)?$/is.test(text)
  );
}

/**
 * Takes a reference apart. Only transports that run no program of the caller's choice are accepted; hosts and refs that git
 * could read as options are not. Throws `invalid`.
 */
export function parseGitReference(text: string): GitReference {
  if (text.length > lengthMax) throw invalid("the git reference is too long");
  const hash = text.indexOf("#");
  const address = hash < 0 ? text : text.slice(0, hash);
  const fragment = hash < 0 ? "" : text.slice(hash + 1);
  const colon = fragment.indexOf(":");
  const ref = colon < 0 ? fragment : fragment.slice(0, colon);
  checkRef(ref);
  return {
    remote: remoteOf(address),
    ref,
    directory: directoryOf(colon < 0 ? "" : fragment.slice(colon + 1)),
  };
}

/** An address that git may be given. Throws `invalid`. */
export function remoteOf(address: string): string {
  const text = /^github\.com\//i.test(address) ? `https://${address}` : address;
  if (/[\s\0-\x1f\x7f]/.test(text)) throw invalid("a git address has no blanks");
  const scp = /^(?:[A-Za-z0-9_][A-Za-z0-9_.-]*@)([A-Za-z0-9][A-Za-z0-9.-]*):(?!\/\/)(?!-)\S+$/.exec(text);
  if (scp !== null) return text;
  let url: URL;
  try {
    url = new URL(text);
  } catch (cause) {
    throw new EngineError("invalid", `invalid git address ${JSON.stringify(withoutSecrets(text))}`, {
      code: "git-reference",
      cause,
    });
  }
  if (!["http:", "https:", "git:", "ssh:"].includes(url.protocol) || !text.startsWith(`${url.protocol}//`))
    throw invalid(`git repositories are fetched by https, http, git and ssh only, not by ${url.protocol}`);
  const host = /^[a-z]+:\/\/(?:[^@/]*@)?([^/:?#]*)/i.exec(text)?.[1] ?? "";
  if (host === "" || host.startsWith("-") || /^[^/]*\/\/-/.test(text) || url.pathname.startsWith("/-"))
    throw invalid(`invalid git address ${JSON.stringify(withoutSecrets(text))}`);
  return text;
}

/** git-check-ref-format(1), and no `+` or `-` at the front. */
function checkRef(ref: string): void {
  if (ref === "") return;
  const bad = ref.length > 250 || /^[-+/]|\/$|\/\/|\.\.|@\{|\.lock(?:\/|$)|[\0-\x20\x7f~^:?*[\\]/.test(ref);
  if (bad) throw invalid(`invalid git ref ${JSON.stringify(ref)}`);
}

function directoryOf(text: string): string {
  if (text.includes("\0")) throw invalid("invalid directory in a git reference");
  const clean = posix.normalize(text.replace(/^\/+/, "")).replace(/\/$/, "");
  if (clean === ".." || clean.startsWith("../"))
    throw invalid(`the directory ${JSON.stringify(text)} lies outside of the repository`);
  return clean === "." ? "" : clean;
}

/** A text with the passwords of its URLs left out, for messages. */
export function withoutSecrets(text: string): string {
  return text.replace(/([a-z][a-z0-9+.-]*:\/\/)[^/@\s'"]*@/gi, "$1");
}
