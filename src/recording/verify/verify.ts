/**
 * `verify`: does the stack behave as the recorded system did? One recording at a time: its kind is
 * recognised, its rows are compared, and what comes out is plain data.
 */
import { assert, StackError, unreachable } from "../../errors.ts";
import type { RecordingKind } from "../kinds.ts";
import { recognise } from "../recognise.ts";
import type { Checker } from "./checker.ts";
import { QemuChecker } from "./qemu-checker.ts";
import { RequestChecker } from "./request-checker.ts";
import { DIVERGENCES_LISTED_MAX, type Diagnostic, type RecordingResult } from "./result.ts";
import { type ScheduleVerifier, TraceChecker } from "./trace-checker.ts";

/** What a recording gave. */
export interface RecordingVerdict {
  readonly result: RecordingResult;
  readonly diagnostics: readonly Diagnostic[];
}

/** How to verify. */
export interface VerifyOptions {
  /** Checks the addresses of a trace against our allocator; null checks the plain rules only. */
  readonly schedule: ScheduleVerifier | null;
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
  const checker = checkerOf(recording.kind, file, options.schedule);
  for await (const chunk of recording.chunks) {
    try {
      checker.push(chunk);
    } catch (error) {
      throw withFile(error, file);
    }
    options.progress?.(checker.lines);
  }
  return verdictOf(file, recording.kind, checker);
}

/** Makes the verifier for a kind of recording. */
export function checkerOf(
  kind: RecordingKind,
  file: string,
  schedule: ScheduleVerifier | null,
): Checker {
  switch (kind.family) {
    case "trace":
      return new TraceChecker(file, schedule);
    case "qemu-log":
      return new QemuChecker(file);
    case "requests":
      return new RequestChecker(file);
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
