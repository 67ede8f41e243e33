/** Runs one command line on a given terminal: grammar, verb, exit status. */
import { readFile } from "node:fs/promises";
import { run } from "@stricli/core";
import { buildApp } from "./app.ts";
import type { CliContext } from "./context.ts";
import { Exit, reportProblem } from "./problem.ts";
import type { Terminal } from "./terminal.ts";

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
 * @param isDebug - whether problems show a stack trace
 */
export async function runCommandLine(
  words: readonly string[],
  terminal: Terminal,
  isDebug: boolean,
): Promise<Exit> {
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
  return exit ?? exitOf(streams.exitCode);
}
