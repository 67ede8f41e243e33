/**
 * `verify`: does the stack behave as the recorded system did? One recording at a time: its kind is
 * recognised, its rows are compared, and what comes out is plain data.
 */
import { assert, StackError, unreachable } from "../../errors.ts";
import type { TaskWindow } from "../events-of-calls.ts";
import type { RecordingKind } from "../kinds.ts";
import { MapEvents } from "../map-events.ts";
import { recognise } from "../recognise.ts";
import type { Checker } from "./checker.ts";
import { QemuChecker } from "./qemu-checker.ts";
import { RequestChecker } from "./request-checker.ts";
import { DIVERGENCES_LISTED_MAX, type Diagnostic, type RecordingResult } from "./result.ts";
import { type ScheduleVerifier, TraceChecker } from "./trace-checker.ts";
import { VfioMapTimeChecker } from "./vfio-map-time-checker.ts";
import { VfioType1Checker } from "./vfio-type1-checker.ts";

/** What a recording gave. */
export interface RecordingVerdict {
  readonly result: RecordingResult;
  readonly diagnostics: readonly Diagnostic[];
  /** A companion that holds the events of this recording's calls, and where they lie. */
  readonly events?: { readonly file: string; readonly window: TaskWindow };
}

/** A recording beside the one that is verified. */
export interface Companion {
  readonly file: string;
  /** Its bytes, unpacked, from the first. */
  open(): AsyncIterable<Uint8Array>;
}

/** How to verify. */
export interface VerifyOptions {
  /** Checks the addresses of a trace against our allocator; null checks the plain rules only. */
  readonly schedule: ScheduleVerifier | null;
  /** Other recordings of the same run, which may hold the events that this one's calls caused. */
  readonly companions?: readonly Companion[];
  /** Parts of a trace that are compared with another recording. */
  readonly elsewhere?: readonly TaskWindow[];
  /** Told how many events were read so far. */
  readonly progress?: (events: number) => void;
}

/**
 * Verifies one recording.
 *
 * @param file - its name, for messages
 * @param chunks - its bytes, unpacked
 * @throws StackError when it is no recording, or cannot be read to its end
 */
export async function verifyRecording(
  file: string,
  chunks: AsyncIterable<Uint8Array>,
  options: VerifyOptions,
): Promise<RecordingVerdict> {
  const recording = await recognise(file, chunks);
  const checker = checkerOf(recording.kind, file, options.schedule, options.elsewhere);
  for await (const chunk of recording.chunks) {
    try {
      checker.push(chunk);
    } catch (error) {
      throw withFile(error, file);
    }
    options.progress?.(checker.lines);
  }
  if (checker instanceof VfioMapTimeChecker) {
    for (const companion of options.companions ?? []) await offerEvents(checker, companion);
    const { events } = checker;
    const verdict = verdictOf(file, recording.kind, checker);
    return events === null ? verdict : { ...verdict, events };
  }
  return verdictOf(file, recording.kind, checker);
}

/** Offers the map events of a companion, if it is a trace that can be read. */
async function offerEvents(checker: VfioMapTimeChecker, { file, open }: Companion): Promise<void> {
  try {
    const recording = await recognise(file, open());
    if (recording.kind.family !== "trace") return;
    const events = new MapEvents();
    for await (const chunk of recording.chunks) events.push(chunk);
    events.end();
    checker.offer({ file, events });
  } catch (error) {
    // What is wrong with it is said when it is verified itself.
    if (!(error instanceof StackError)) throw error;
  }
}

/** Makes the verifier for a kind of recording. */
export function checkerOf(
  kind: RecordingKind,
  file: string,
  schedule: ScheduleVerifier | null,
  elsewhere?: readonly TaskWindow[],
): Checker {
  switch (kind.family) {
    case "trace":
      return new TraceChecker(file, schedule, elsewhere);
    case "qemu-log":
      return new QemuChecker(file);
    case "requests":
      return new RequestChecker(file);
    case "vfio-type1":
      return new VfioType1Checker(file);
    case "vfio-map-time":
      return new VfioMapTimeChecker(file);
    default:
      return unreachable(kind.family);
  }
}

/** Ends a verifier and puts its rows into a result. */
export function verdictOf(file: string, kind: RecordingKind, checker: Checker): RecordingVerdict {
  const { tally, moves, flushesInferred, diagnostics, ...facts } = checker.end();
  assert(tally.matched + tally.waived <= tally.compared, "rows are counted once");
  const { divergences } = tally;
  const differing = tally.compared - tally.matched;
  assert(divergences.length <= DIVERGENCES_LISTED_MAX, "the list of divergences is bounded");
  return {
    result: {
      file,
      kind: kind.name,
      compared: tally.compared,
      matched: tally.matched,
      waived: tally.waived,
      ...(moves === undefined ? {} : { moves }),
      ...(flushesInferred === undefined ? {} : { flushesInferred }),
      ...facts,
      waivers: tally.waivers,
      divergences,
      divergencesOmitted: differing - divergences.length,
    },
    diagnostics,
  };
}

/** Whether every row of a recording matches or is waived. */
export function isVerified({ compared, matched, waived }: RecordingResult): boolean {
  return compared === matched + waived;
}

/** Names the file in an error that does not know it. */
function withFile(error: unknown, file: string): unknown {
  if (!(error instanceof StackError) || error.at !== undefined) return error;
  const { code, kind, message, hint } = error;
  return new StackError({
    code: code as `${string}/${string}`,
    kind,
    message,
    at: { file },
    ...(hint === undefined ? {} : { hint }),
    cause: error,
  });
}
