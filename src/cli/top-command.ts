/** The grammar of the verb `top`. */
import { buildCommand } from "@stricli/core";
import { parseDurationNs } from "./arguments.ts";
import { type CliContext, json } from "./context.ts";
import type { TopFlags } from "./top.ts";

const text = { kind: "parsed", parse: (value: string) => value, optional: true } as const;

/** The flag `--runtime-dir`. */
export const runtimeDir = {
  ...text,
  brief: "Folder for sockets and tables instead of one below XDG_RUNTIME_DIR",
  placeholder: "DIR",
} as const;

/** The argument that names a machine file. */
export const machineFile = {
  brief: "Machine file; - is standard input",
  placeholder: "MACHINE.yaml",
  parse: (value: string) => value,
} as const;

export const topCommand = buildCommand<TopFlags, [file: string], CliContext>({
  loader: async () => {
    const { top } = await import("./top.ts");
    return function (this: CliContext, flags: TopFlags, file: string) {
      return this.run(() => top(flags, file, this.terminal));
    };
  },
  parameters: {
    positional: { kind: "tuple", parameters: [machineFile] },
    flags: {
      once: { ...json, brief: "Print one view over one interval and end" },
      interval: {
        kind: "parsed",
        parse: parseDurationNs,
        brief: "Time between two looks; 1s when absent",
        placeholder: "TIME",
        optional: true,
      },
      runtimeDir,
      json: { ...json, brief: "Print one JSON object a look" },
    },
  },
  docs: {
    brief: "Watch a machine that is served: requests, syncs, mappings, faults, latencies",
    customUsage: ["vm.yaml", "--once --json vm.yaml", "--interval 200ms vm.yaml"],
  },
});
