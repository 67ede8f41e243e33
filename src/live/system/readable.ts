/**
 * Watching a descriptor from Node's own event loop, for the process that has one. Linux only.
 */
import { StackError } from "../../errors.ts";

/** A descriptor that is watched. Close it before the descriptor. */
export interface Readable {
  /** Calls back whenever there is something to read, as long as there is. */
  start(): void;
  stop(): void;
  close(): void;
}

/** Makes watches. @throws StackError `live/foreign-calls` */
export async function readableWatcher(): Promise<(fd: number, callback: () => void) => Readable> {
  let koffi: typeof import("koffi");
  try {
    koffi = (await import("koffi")).default as unknown as typeof import("koffi");
  } catch (cause) {
    throw new StackError({
      code: "live/foreign-calls",
      kind: "usage",
      message: "the package for foreign calls (koffi) does not load on this system",
      cause,
    });
  }
  return (fd, callback) => {
    const handle = koffi.node.poll(fd, { readable: true, disconnect: true }, callback);
    return {
      start: () => handle.start({ readable: true, disconnect: true }, callback),
      stop: () => handle.stop(),
      close: () => handle.close(),
    };
  };
}
