/** Runs the command line in this process: streams, signals, exit status. */
import { readFile } from "node:fs/promises";
import { run } from "@stricli/core";
import { buildApp, type CliContext } from "./app.ts";
import { Exit, reportProblem } from "./problem.ts";
import { ProcessTerminal } from "./terminal.ts";

/** Exit status of a process that SIGINT ended, as shells report it. */
const EXIT_SIGINT = 130;

/** Ends quietly when the reader of a stream has gone, as `| head` does. */
function onStreamError(error: NodeJS.ErrnoException): void {
  if (error.code === "EPIPE") process.exit(Exit.DONE);
  process.exit(Exit.INTERNAL);
}

async function packageVersion(): Promise<string> {
  const manifest = await readFile(new URL("../../package.json", import.meta.url), "utf8");
  return String((JSON.parse(manifest) as { version: unknown }).version);
}

/** Maps the parser's own statuses, which are negative, to this program's. */
function exitOf(status: unknown): Exit {
  if (status === 0) return Exit.DONE;
  // -5 is an unknown verb, -4 arguments that do not parse; the rest are mistakes of the program.
  return status === -5 || status === -4 ? Exit.BAD_INPUT : Exit.INTERNAL;
}

/**
 * Runs one command line.
 *
 * @param words - the arguments behind the program's name
 */
export async function main(words: readonly string[]): Promise<void> {
  process.stdout.on("error", onStreamError);
  process.stderr.on("error", onStreamError);
  const terminal = new ProcessTerminal({
    stdout: process.stdout,
    stderr: process.stderr,
    env: process.env,
    now: () => performance.now(),
  });
  process.once("SIGINT", () => {
    terminal.clear();
    process.exit(EXIT_SIGINT);
  });
  const isDebug = process.env.IOMMUKIT_DEBUG === "1";
  let exit: Exit | null = null;
  const streams = {
    stdout: { write: (text: string) => terminal.print(text) },
    stderr: { write: (text: string) => terminal.note(text.replace(/\n$/, "")) },
    exitCode: null as number | string | null,
  };
  const context: CliContext & { process: typeof streams } = {
    process: streams,
    terminal,
    run: async (verb) => {
      try {
        exit = await verb();
      } catch (thrown) {
        exit = reportProblem(thrown, terminal, isDebug);
      }
    },
  };
  const inputs = words[0] === "help" ? [...words.slice(1), "--help"] : words;
  try {
    await run(buildApp(packageVersion), inputs, context);
  } catch (thrown) {
    exit = reportProblem(thrown, terminal, isDebug);
  }
  terminal.clear();
  process.exitCode = exit ?? exitOf(streams.exitCode);
}
