import type { CliContext } from "./context.ts";
import { onResize, terminalSize } from "./terminal.ts";

const triesMax = 10;

/**
 * Keeps the remote terminal as large as ours, until disposed. The first resize is tried again for a while: a process
 * that is just being started has no terminal yet. `path` is `/containers/ID` or `/exec/ID`.
 * `repaint`: a size one larger comes first, so that a program that has our size already paints again.
 */
export function followTerminalSize(
  context: CliContext,
  path: string,
  options: { repaint?: boolean } = {},
): Disposable {
  const resize = async (larger = 0): Promise<void> => {
    const { width, height } = terminalSize();
    if (width === 0 && height === 0) return;
    const query = { h: height + larger, w: width + larger };
    await context.client.run("POST", `${path}/resize`, { query });
  };
  const first = async (): Promise<void> => {
    // Without it the size is still set; the process may have ended, which the stream tells.
    if (options.repaint === true) await resize(1).catch(() => {});
    for (let tries = 0; tries < triesMax; tries += 1) {
      try {
        await resize();
        return;
      } catch {
        await new Promise((wake) => setTimeout(wake, (tries + 1) * 10));
      }
    }
    context.error("failed to resize tty, using default size");
  };
  // One after another: of two requests under way the older could arrive last and stay.
  let last = first();
  return onResize(() => {
    last = last
      .then(() => resize())
      .catch(() => {
        // The process may have ended between the signal and the request.
      });
  });
}
