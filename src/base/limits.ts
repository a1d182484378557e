/**
 * Every bound in one place (invariant 7): unit last in the name, reason beside the number.
 * Nothing from outside is read without one of these.
 */
export const limits = {
  /** A JSON request body; Docker's own create bodies stay under 100 kB. */
  requestBodyBytesMax: 8 * 1024 * 1024,
  /** A manifest or index: the distribution spec asks registries to take at least 4 MiB. */
  manifestBytesMax: 4 * 1024 * 1024,
  /** An image config; real ones are under 100 kB, a history of thousands of lines under 1 MiB. */
  imageConfigBytesMax: 8 * 1024 * 1024,
  /** Overlay mounts take 500 lower layers, Docker allows 127; images beyond that run nowhere else. */
  layersPerImageMax: 127,
  /** A path inside an archive: PATH_MAX. */
  archivePathBytesMax: 4096,
  /** Depth of a path inside an archive. */
  archivePathDepthMax: 512,
  /** One PAX or GNU long header; a path, a link and xattrs fit many times over. */
  archiveHeaderBytesMax: 1024 * 1024,
  /** Entries of one layer: a node_modules-heavy image has about 200,000. */
  archiveEntriesMax: 4_000_000,
  /** Uncompressed bytes of one layer. */
  layerBytesMax: 512 * 1024 ** 3,
  /** Packed bytes of a git repository that a build fetches: the Linux kernel's whole history takes 5 GiB. */
  gitBytesMax: 16 * 1024 ** 3,
  /**
   * Compression ratio beyond which an archive larger than 1 GiB is taken for a bomb. Zeros reach 1,030 with gzip and
   * 30,000 with zstd: a test image with a file of 1 GiB of zeros still passes, more than that is no real layer.
   */
  compressionRatioMax: 800,
  /** /etc/passwd and /etc/group of an image. */
  passwdBytesMax: 1024 * 1024,
  /** Frames of the shim protocol. */
  shimFrameBytesMax: 1024 * 1024,
  /** Buffered output for one attached client that does not read, before output is dropped with a marker. */
  attachBufferBytesMax: 1024 * 1024,
  /** Buffered events for one reader. */
  eventBacklogMax: 1024,
  /** Log readers that may hold 256 KiB of a log each at a time; the others hold 8 KiB. */
  largeLogReadsMax: 16,
  /** Pieces of logs read and parsed at a time: a large one costs the event loop some 3 ms. */
  logReadsAtOnce: 2,
  /** Concurrent downloads per pull, as dockerd's default. */
  concurrentDownloads: 3,
  /** Network namespaces made ahead of time: more than two cores can start in the time it takes to make as many again. */
  networkPoolSize: 32,
  /** Layers unpacked at once: one a core on small machines. */
  concurrentUnpacks: 4,
  /** Labels, env entries and the like in one create body. */
  listItemsMax: 65_536,
  /** Longest container name. */
  containerNameLengthMax: 255,
  /** Docker refuses less memory than this: a process cannot start below it. */
  containerMemoryBytesMin: 6 * 1024 * 1024,
} as const;
