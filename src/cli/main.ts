/** Runs the command line in this process: streams, signals, exit status. */
import { runCommandLine } from "./command-line.ts";
import { Exit } from "./problem.ts";
import { ProcessTerminal } from "./terminal.ts";

/** Exit status of a process that SIGINT ended, as shells report it. */
const EXIT_SIGINT = 130;

/** Ends quietly when the reader of the output has gone, as `| head` does; says what else is wrong. */
function onOutputError(error: NodeJS.ErrnoException): void {
  if (error.code === "EPIPE") process.exit(Exit.DONE);
  process.stderr.write(`iommukit: the output cannot be written: ${error.code ?? error.message}\n`);
  process.exit(Exit.BAD_INPUT);
}

/**
 * Runs one command line and sets the process's exit status.
 *
 * @param words - the arguments behind the program's name
 */
export async function main(words: readonly string[]): Promise<void> {
  process.stdout.on("error", onOutputError);
  // Without a place for messages the work goes on.
  process.stderr.on("error", () => {});
  const terminal = new ProcessTerminal({
    stdout: process.stdout,
    stderr: process.stderr,
    env: process.env,
    now: () => performance.now(),
  });
  process.once("SIGINT", () => {
    terminal.clear();
    // A verb that has something to put away listens, too, and ends by itself.
    if (process.listenerCount("SIGINT") > 0) return;
    process.exit(EXIT_SIGINT);
  });
  const exit = await runCommandLine(words, terminal, process.env.IOMMUKIT_DEBUG === "1");
  terminal.clear();
  process.exitCode = exit;
  // What went wrong may have left something open that would keep this process.
  if (exit === Exit.INTERNAL) process.exit();
}
