/** The grammar of the verb `explain`. */
import { buildCommand } from "@stricli/core";
import { type CliContext, json } from "./context.ts";
import type { ExplainFlags } from "./explain.ts";

export const explainCommand = buildCommand<ExplainFlags, string[], CliContext>({
  loader: async () => {
    const { explain } = await import("./explain.ts");
    return function (this: CliContext, flags: ExplainFlags, ...words: string[]) {
      return this.run(() => explain(flags, words, this.terminal));
    };
  },
  parameters: {
    positional: {
      kind: "array",
      parameter: {
        brief: "A code of a finding, or a line of dmesg or of QEMU",
        placeholder: "CODE|MESSAGE",
        parse: (text: string) => text,
      },
    },
    flags: { json },
  },
  docs: {
    brief: "Cause and remedy of a finding, or of a message of Linux or QEMU",
    customUsage: ["", "node-mismatch", '"VFIO_MAP_DMA failed: Cannot allocate memory"'],
  },
});
