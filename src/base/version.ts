/** Skiff's own version; a test holds it equal to package.json's. */
export const skiffVersion = "0.1.0";

/**
 * The Docker Engine release whose API we speak, with ours as build metadata. Clients parse the leading numbers
 * (dev containers want at least 17.06) and compare them; Debian's `20.10.24+dfsg1` is the precedent for the suffix.
 */
export const engineVersion = `28.3.3+skiff${skiffVersion}`;
