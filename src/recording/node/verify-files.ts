/** Verifies recordings given as paths: opens each, and puts what they gave into one document. */
import { StackError } from "../../errors.ts";
import type { Diagnostic, RecordingResult, VerifyDocument } from "../verify/result.ts";
import type { ScheduleVerifier } from "../verify/trace-checker.ts";
import { isVerified, verifyRecording } from "../verify/verify.ts";
import { openFile, STDIN_PATH } from "./file-source.ts";

/** What verifying several files gave. */
export interface VerifyFilesOutcome {
  readonly document: VerifyDocument;
  /** Every row of every recording matches or is waived. */
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
  const recordings: RecordingResult[] = [];
  const diagnostics: Diagnostic[] = [];
  let failure: StackError | null = null;
  for (const path of paths) {
    const file = path === STDIN_PATH ? "(standard input)" : path;
    try {
      const { result, diagnostics: remarks } = await verifyRecording(
        file,
        openFile(path, options.stdin),
        {
          schedule: options.schedule,
          progress: (events) => options.progress?.(file, events),
        },
      );
      recordings.push(result);
      diagnostics.push(...remarks);
    } catch (error) {
      if (!(error instanceof StackError)) throw error;
      failure ??= error;
      diagnostics.push(diagnosticOf(error, file));
    }
  }
  return {
    document: { schema: "iommukit/verify@1", result: { recordings }, diagnostics },
    verified: failure === null && recordings.every(isVerified),
    failure,
  };
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
