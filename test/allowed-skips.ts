/** The only tests that may be skipped, each with the reason it was reviewed for. `test` is part of the printed name. */
export const allowedSkips: readonly { readonly test: string; readonly reason: string }[] = [
  {
    test: "cli-comparison.test.ts: our command line beside Docker's client",
    reason: "Debian 12 has no Docker client newer than 20.10, whose help and messages are others",
  },
  {
    test: "cli-requests.test.ts: requests of our command line and of Docker's client",
    reason: "Debian 12 has no Docker client newer than 20.10, which lacks many of the flags",
  },
  ...["out of", "into"].map((way) => ({
    test: `cp.test.ts: ${way} a container`,
    reason: "Debian 12 has no Docker client newer than 20.10, whose refusals of a copy are others than ours",
  })),
  {
    test: "two-hosts.test.ts: docker: the same over ssh",
    reason: "Debian 12 has no Docker client newer than 20.10, which takes no path of a socket in an ssh host",
  },
  {
    test: ", by our own client",
    reason: "Debian 12 has no Docker client newer than 20.10, whose messages are others than ours",
  },
];
