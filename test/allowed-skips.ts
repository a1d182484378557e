/** The only tests that may be skipped, each with the reason it was reviewed for. `test` is part of the printed name. */
export const allowedSkips: readonly { readonly test: string; readonly reason: string }[] = [];
