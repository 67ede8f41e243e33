/** The real `trace-cmd report` prints events that we wrote; our reader must give them back. */
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect } from "vitest";
import { itNeeds } from "../../test/support/tools.ts";
import { Random } from "../random.ts";
import { addressOf } from "../units.ts";
import { recordingKinds } from "./kinds.ts";
import { Recogniser } from "./recognise.ts";
import { type DatEvent, traceDat } from "./trace-dat.suite.ts";
import { TraceKind } from "./trace-event.ts";
import { TraceTextReader } from "./trace-text.ts";

const tasks = { 614: "fio", 115: "kworker/0:1H", 9: "a b-7 [3]" };

let folder = "";
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "trace-cmd-"));
});
afterAll(() => rmSync(folder, { recursive: true }));

/** Events of one CPU, several ring-buffer pages of them. */
function someEvents(random: Random, cpu: number): DatEvent[] {
  const pids = Object.keys(tasks).map(Number);
  return Array.from({ length: 300 }, (_, index) => ({
    kind: random.chance(1, 2) ? ("map" as const) : ("unmap" as const),
    pid: pids[random.below(pids.length)]!,
    timeNs: 90_080_026_000 + index * 300_000 + cpu * 1000 + random.below(999),
    flags: 0,
    iova: addressOf(random.chance(1, 4) ? 2 ** 52 - 16 : random.below(2 ** 20)),
    paddr: addressOf(random.below(2 ** 30) * 2 ** 20),
    size: 4096n * BigInt(1 + random.below(16)),
  }));
}

function report(path: string, file: string, words: readonly string[]): Uint8Array {
  return execFileSync(path, ["report", "-i", file, ...words], {
    stdio: ["ignore", "pipe", "ignore"],
    maxBuffer: 2 ** 26,
  });
}

interface Seen {
  readonly text: string;
  readonly timeUs: number;
  readonly timeNs: number;
}

function read(bytes: Uint8Array): { seen: Seen[]; reader: TraceTextReader } {
  const seen: Seen[] = [];
  const reader: TraceTextReader = new TraceTextReader((event) => {
    const kind = event.kind === TraceKind.map ? "map" : "unmap";
    const paddr = addressOf(event.physPfn, event.physOffset);
    const iova = addressOf(event.iovaPfn, event.iovaOffset);
    const where = `${reader.commName(event.comm)} ${event.pid} ${event.cpu}`;
    const { timeUs, timeNs } = event;
    seen.push({ text: `${where} ${kind} ${iova} ${paddr} ${event.pages}`, timeUs, timeNs });
  });
  reader.push(bytes);
  reader.end();
  return { seen, reader };
}

describe("trace-cmd report", () => {
  const random = new Random(12);
  const cpus = [0, 1, 2].map((cpu) => someEvents(random, cpu));
  const dat = traceDat(
    cpus.map((events, cpu) => ({
      events,
      ...(cpu === 0 ? {} : { lost: cpu === 1 ? 7 : "unknown" }),
    })),
    tasks,
  );
  const expected = cpus
    .flatMap((events, cpu) => events.map((event) => ({ event, cpu })))
    .sort((a, b) => a.event.timeNs - b.event.timeNs)
    .map(({ event, cpu }) => {
      const name = tasks[event.pid as keyof typeof tasks];
      const paddr = event.kind === "map" ? event.paddr : 0n;
      return `${name} ${event.pid} ${cpu} ${event.kind} ${event.iova} ${paddr} ${event.size / 4096n}`;
    });

  for (const [title, words] of [
    ["as it is", []],
    ["with nanoseconds", ["-t"]],
    ["with raw fields", ["-R"]],
  ] as const) {
    itNeeds("trace-cmd", `is read to the last event ${title}`, (path) => {
      const file = join(folder, "trace.dat");
      writeFileSync(file, dat);
      const bytes = report(path, file, words);
      const { seen, reader } = read(bytes);
      expect(seen.map(({ text }) => text)).toEqual(expected);
      expect(reader.notes).toMatchObject({
        unreadable: 0,
        lostEvents: 7,
        lostMarkers: 2,
        backwards: 0,
      });
      expect(reader.cpus).toBe(3);
      if (title === "with nanoseconds") {
        const times = cpus.flat().map(({ timeNs }) => timeNs);
        expect(seen.map(({ timeUs, timeNs }) => timeUs * 1000 + timeNs)).toEqual(
          times.sort((a, b) => a - b),
        );
      }
      const recogniser = new Recogniser();
      recogniser.push(bytes);
      expect(recogniser.kind).toBe(recordingKinds.find(({ name }) => name === "trace-cmd"));
    });
  }
});
