/** Starts QEMU, and sees to it that none is left behind. */
import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, openSync } from "node:fs";
import { StackError } from "../../errors.ts";

/** How QEMU ended. */
export interface QemuEnd {
  readonly status: number | null;
  readonly signal: NodeJS.Signals | null;
}

/** Where QEMU's own output goes: to ours, or into a file. */
export type Output =
  | { readonly kind: "inherit" }
  | { readonly kind: "file"; readonly path: string };

const PATIENCE_MS = 5000;

/** A running QEMU. */
export class RunningQemu {
  readonly #child: ChildProcess;
  /** Resolves when it has ended, however. */
  readonly ended: Promise<QemuEnd>;

  /** @throws StackError `live/qemu-start` by {@link ended} when it cannot be started */
  constructor(command: readonly string[], output: Output) {
    const [program, ...words] = command;
    const file = output.kind === "file" ? openSync(output.path, "w") : null;
    const stdio = file === null ? "inherit" : (["ignore", file, file] as const);
    const child = spawn(program ?? "", words, { stdio: stdio as never });
    if (file !== null) closeSync(file);
    this.#child = child;
    this.ended = new Promise((resolve, reject) => {
      child.on("error", (cause: NodeJS.ErrnoException) =>
        reject(
          new StackError({
            code: "live/qemu-start",
            kind: "input",
            message: `QEMU cannot be started (${cause.code ?? cause.message})`,
            at: { file: program ?? "" },
            cause,
          }),
        ),
      );
      child.on("exit", (status, signal) => resolve({ status, signal }));
    });
    // Who waits for `ended` hears of an error; nobody may be waiting yet.
    this.ended.catch(() => {});
  }

  get pid(): number | undefined {
    return this.#child.pid;
  }

  /** Asks it to end, insists after five seconds, and resolves when it is gone. */
  async stop(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    this.#child.kill("SIGTERM");
    const timer = setTimeout(() => this.#child.kill("SIGKILL"), PATIENCE_MS);
    await this.ended.catch(() => {});
    clearTimeout(timer);
  }
}
