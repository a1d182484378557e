/** Version of the command line; `package.json` holds the same (a test compares). */
export const version = "0.1.0";
/** Shown where Docker shows a commit; the bundler writes the real one. */
export const gitCommit = "source";
export const buildTime = "";
