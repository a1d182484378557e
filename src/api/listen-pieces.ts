/** Where a body's pieces go. `piece` returns false to be left alone until more is asked for. */
export interface BodySink {
  piece(bytes: Buffer): boolean;
  end(): void;
  fail(error: Error): void;
}

export interface PieceSource {
  begin(sink: BodySink): void;
  /** The next piece is wanted; `used`: the one before is not needed any more. */
  more(used: Buffer | undefined): void;
  /** Nothing more is wanted. */
  end(sink: BodySink): void;
}

/**
 * A body as pieces that are lent: one at a time, valid until the next is asked for. A body of 1 GB comes in some 30,000
 * pieces, whose memory the garbage collector finds only by marking everything, every 64 MB.
 */
export function borrowedPieces(source: PieceSource): AsyncIterableIterator<Buffer> {
  let lent: Buffer | undefined;
  let ready: Buffer | undefined;
  let ended = false;
  let failure: Error | undefined;
  let waiting: PromiseWithResolvers<IteratorResult<Buffer>> | undefined;
  const settle = (): void => {
    if (waiting === undefined) return;
    const { resolve, reject } = waiting;
    if (ready !== undefined) {
      lent = ready;
      ready = undefined;
      waiting = undefined;
      resolve({ value: lent, done: false });
    } else if (failure !== undefined) {
      waiting = undefined;
      reject(failure);
    } else if (ended) {
      waiting = undefined;
      resolve({ value: undefined, done: true });
    }
  };
  const sink: BodySink = {
    piece: (bytes) => {
      ready = bytes;
      settle();
      return false;
    },
    end: () => {
      ended = true;
      settle();
    },
    fail: (error) => {
      failure = error;
      settle();
    },
  };
  let begun = false;
  return {
    next: () => {
      const next = Promise.withResolvers<IteratorResult<Buffer>>();
      waiting = next;
      const used = lent;
      lent = undefined;
      if (!begun) {
        begun = true;
        source.begin(sink);
      } else if (ready === undefined && !ended && failure === undefined) source.more(used);
      settle();
      return next.promise;
    },
    return: () => {
      ended = true;
      source.end(sink);
      return Promise.resolve({ value: undefined, done: true });
    },
    [Symbol.asyncIterator]() {
      return this;
    },
  };
}
