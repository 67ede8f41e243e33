/** What the grammar of every verb shares. */
import type { CommandContext } from "@stricli/core";
import type { Exit } from "./problem.ts";
import type { Terminal } from "./terminal.ts";

/** What a verb gets beside its flags and arguments. */
export interface CliContext extends CommandContext {
  readonly terminal: Terminal;
  /** Runs a verb, turns what it throws into a message, and notes its exit status. */
  readonly run: (verb: () => Promise<Exit>) => Promise<void>;
}

/** The flag `--json`. */
export const json = {
  kind: "boolean",
  brief: "Print one JSON object instead of tables",
  default: false,
  withNegated: false,
} as const;
