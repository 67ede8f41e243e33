/** Verifies recordings given as paths: opens each, and puts what they gave into one document. */
import { StackError } from "../../errors.ts";
import type { TaskWindow } from "../events-of-calls.ts";
import type { Diagnostic, VerifyDocument } from "../verify/result.ts";
import type { ScheduleVerifier } from "../verify/trace-checker.ts";
import { isVerified, type RecordingVerdict, verifyRecording } from "../verify/verify.ts";
import { openFile, STDIN_PATH } from "./file-source.ts";

/** What verifying several files gave. */
export interface VerifyFilesOutcome {
  readonly document: VerifyDocument;
  /** Every row of every recording could be read, and matches or is waived. */
  readonly verified: boolean;
  /** The first file that could not be read as a recording, `null` when all could. */
  readonly failure: StackError | null;
}

/** How to verify files. */
export interface VerifyFilesOptions {
  readonly schedule: ScheduleVerifier | null;
  /** What `-` reads; the standard input by default. */
  readonly stdin?: AsyncIterable<Uint8Array>;
  /** Told which file is read and how many events were read of it so far. */
  readonly progress?: (file: string, events: number) => void;
}

/**
 * Verifies recordings, one after the other. A file that is no recording does not keep the others
 * from being verified.
 *
 * @param paths - files, or `-` for the standard input
 */
export async function verifyFiles(
  paths: readonly string[],
  options: VerifyFilesOptions,
): Promise<VerifyFilesOutcome> {
  const outcomes: (RecordingVerdict | StackError)[] = [];
  for (const path of paths) outcomes.push(await verifyFile(path, paths, options));
  // A trace whose events belong to the calls of another recording is no trace of the DMA API.
  for (const [index, path] of paths.entries()) {
    const elsewhere = windowsElsewhere(outcomes, fileOf(path));
    if (elsewhere.length === 0 || path === STDIN_PATH) continue;
    outcomes[index] = await verifyFile(path, [], options, elsewhere);
  }
  const recordings = outcomes.flatMap((outcome) =>
    outcome instanceof StackError ? [] : [outcome.result],
  );
  const diagnostics = outcomes.flatMap((outcome, index) =>
    outcome instanceof StackError
      ? [diagnosticOf(outcome, fileOf(paths[index]!))]
      : outcome.diagnostics,
  );
  const failure = outcomes.find((outcome) => outcome instanceof StackError) ?? null;
  return {
    document: { schema: "iommukit/verify@1", result: { recordings }, diagnostics },
    verified:
      failure === null &&
      recordings.every(isVerified) &&
      diagnostics.every(({ severity }) => severity !== "error"),
    failure,
  };
}

/** A path as messages name it. */
function fileOf(path: string): string {
  return path === STDIN_PATH ? "(standard input)" : path;
}

/** Verifies one file; what is wrong with it when it cannot be read as a recording. */
async function verifyFile(
  path: string,
  paths: readonly string[],
  options: VerifyFilesOptions,
  elsewhere: readonly TaskWindow[] = [],
): Promise<RecordingVerdict | StackError> {
  const file = fileOf(path);
  try {
    return await verifyRecording(file, openFile(path, options.stdin), {
      schedule: options.schedule,
      // The standard input can be read only once.
      companions: paths
        .filter((other) => other !== path && other !== STDIN_PATH)
        .map((other) => ({ file: other, open: () => openFile(other) })),
      elsewhere,
      progress: (events) => options.progress?.(file, events),
    });
  } catch (error) {
    if (!(error instanceof StackError)) throw error;
    return error;
  }
}

/** Parts of a trace that were compared with other recordings. */
function windowsElsewhere(
  outcomes: readonly (RecordingVerdict | StackError)[],
  file: string,
): TaskWindow[] {
  return outcomes.flatMap((outcome) => {
    const isHere = !(outcome instanceof StackError) && outcome.events?.file === file;
    return isHere ? [outcome.events.window] : [];
  });
}

function diagnosticOf(error: StackError, file: string): Diagnostic {
  const { line, offset } = error.at ?? {};
  return {
    severity: "error",
    code: error.code,
    message: error.message,
    file: error.at?.file ?? file,
    ...(line === undefined ? {} : { line }),
    ...(offset === undefined ? {} : { offset }),
    ...(error.hint === undefined ? {} : { hint: error.hint }),
  };
}
