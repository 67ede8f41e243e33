/** The verb `top`: a live view of a machine that is served, out of its metrics. */
import { scrapeText } from "../live/machine/metrics-server.ts";
import { parseOpenMetrics, type Scrape } from "../live/machine/open-metrics.ts";
import { renderTop, topView } from "../report/top-view.ts";
import { metricsOf, readLiveMachine } from "./live-input.ts";
import { Exit } from "./problem.ts";
import type { Terminal } from "./terminal.ts";

/** Flags of the verb. */
export interface TopFlags {
  readonly once: boolean;
  readonly json: boolean;
  /** Nanoseconds. */
  readonly interval?: number;
  readonly runtimeDir?: string;
}

const INTERVAL_NS = 1e9;
const CLEAR_SCREEN = "\u001b[H\u001b[2J";

const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

/** Runs the verb until it is interrupted, or once. */
export async function top(flags: TopFlags, file: string, terminal: Terminal): Promise<Exit> {
  const endpoint = metricsOf(readLiveMachine(file), flags.runtimeDir);
  const look = async (): Promise<{ scrape: Scrape; atMs: number }> => {
    const scrape = parseOpenMetrics(await scrapeText(endpoint));
    return { scrape, atMs: performance.now() };
  };
  const isScreen = !flags.once && !flags.json && process.stdout.isTTY === true;
  let before = await look();
  for (;;) {
    await sleep((flags.interval ?? INTERVAL_NS) / 1e6);
    const now = await look();
    const view = topView(now.scrape, before.scrape, (now.atMs - before.atMs) / 1000);
    if (flags.json) {
      terminal.print(`${JSON.stringify({ schema: "iommukit/top@1", result: view })}\n`);
    } else {
      const lines = renderTop(view, terminal.style);
      terminal.print(`${isScreen ? CLEAR_SCREEN : ""}${lines.join("\n")}\n`);
    }
    if (flags.once) return Exit.DONE;
    before = now;
  }
}
