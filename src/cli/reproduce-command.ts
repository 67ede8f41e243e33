/** Grammar of the verb `reproduce`. */
import { buildCommand } from "@stricli/core";
import { type CliContext, json } from "./context.ts";
import type { ReproduceFlags } from "./reproduce.ts";

export const reproduceCommand = buildCommand<ReproduceFlags, string[], CliContext>({
  loader: async () => {
    const { reproduce } = await import("./reproduce.ts");
    return function (this: CliContext, flags: ReproduceFlags, ...names: string[]) {
      return this.run(() => reproduce(flags, names, this.terminal));
    };
  },
  parameters: {
    positional: {
      kind: "array",
      parameter: {
        brief:
          "Which published tables: a thread's number, or a name; all when absent, an unknown one lists them",
        placeholder: "NAME",
        parse: (text: string) => text,
      },
    },
    flags: { json, html: { ...json, brief: "Print one HTML file with charts" } },
  },
  docs: {
    brief: "Published tables beside ours: error, and whether a row was fitted or predicted",
    customUsage: ["2", "pcie-bench", "--json 2", "--html > tables.html"],
  },
});
