import { completionScripts } from "../src/cli/completion-scripts.ts";

/** Where each shell looks for the completion of a command that a package installed. */
const places: Readonly<Record<string, string>> = {
  bash: "usr/share/bash-completion/completions/skiff",
  zsh: "usr/share/zsh/vendor-completions/_skiff",
  fish: "usr/share/fish/vendor_completions.d/skiff.fish",
};

/** Paths below the root of a file system, with what belongs there. */
export function completionFiles(): { path: string; text: string }[] {
  return Object.entries(places).map(([shell, path]) => ({ path, text: completionScripts[shell]! }));
}
