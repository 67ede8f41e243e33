/** Signals that end a verb which serves: it stops what it has started, then it is over. */
import { constants } from "node:os";

const SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"] as const;
/** What shells add to a signal's number. */
const SIGNALLED = 128;

/** Waits for a signal; {@link Signals.close} ends that. */
export class Signals {
  readonly received: Promise<NodeJS.Signals>;
  readonly #handlers = new Map<NodeJS.Signals, () => void>();

  constructor() {
    this.received = new Promise((resolve) => {
      for (const signal of SIGNALS) {
        const handler = () => resolve(signal);
        this.#handlers.set(signal, handler);
        process.on(signal, handler);
      }
    });
  }

  close(): void {
    for (const [signal, handler] of this.#handlers) process.off(signal, handler);
  }
}

/** The exit status that tells of a signal. */
export function statusOf(signal: NodeJS.Signals): number {
  return SIGNALLED + constants.signals[signal];
}
