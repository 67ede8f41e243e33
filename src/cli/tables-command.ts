/** Grammar of the verb `tables`. */
import { buildCommand, buildRouteMap } from "@stricli/core";
import { type CliContext, json } from "./context.ts";
import type { BuildFlags, CheckFlags, DumpFlags } from "./tables.ts";

const asText = (text: string) => text;

const files = {
  kind: "array",
  minimum: 1,
  parameter: {
    brief: "Table or folder of tables, also gzip; - is standard input",
    placeholder: "FILE",
    parse: asText,
  },
} as const;

const buildVerb = buildCommand<BuildFlags, [string], CliContext>({
  loader: async () => {
    const { build } = await import("./tables.ts");
    return function (this: CliContext, flags: BuildFlags, path: string) {
      return this.run(() => build(flags, path, this.terminal));
    };
  },
  parameters: {
    positional: {
      kind: "tuple",
      parameters: [
        { brief: "Topology file; - is standard input", placeholder: "TOPOLOGY", parse: asText },
      ],
    },
    flags: {
      as: {
        kind: "parsed",
        parse: asText,
        brief:
          "What to write: viot, iort, dmar, ivrs, srat, slit, mcfg, dtb, dts, builtin, builtin-v2, builtin-v3, cmdline",
        placeholder: "KIND",
      },
      output: {
        kind: "parsed",
        parse: asText,
        brief: "File to write; - is standard output",
        placeholder: "FILE",
        optional: true,
      },
      like: {
        kind: "parsed",
        parse: asText,
        brief: "Table to replace: take its OEM ids, one revision up",
        placeholder: "FILE",
        optional: true,
      },
    },
    aliases: { o: "output" },
  },
  docs: {
    brief: "Write a topology as a firmware table",
    customUsage: ["host.yaml --as viot -o viot.aml", "host.yaml --as dmar --like DMAR -o dmar.aml"],
  },
});

const dumpVerb = buildCommand<DumpFlags, string[], CliContext>({
  loader: async () => {
    const { dump } = await import("./tables.ts");
    return function (this: CliContext, flags: DumpFlags, ...paths: string[]) {
      return this.run(() => dump(flags, paths, this.terminal));
    };
  },
  parameters: {
    positional: files,
    flags: { json, yaml: { ...json, brief: "Print what the tables say as a topology file" } },
  },
  docs: {
    brief: "Show every field of tables with its offset",
    customUsage: ["/sys/firmware/acpi/tables/DMAR", "--yaml SRAT SLIT VIOT"],
  },
});

const checkVerb = buildCommand<CheckFlags, string[], CliContext>({
  loader: async () => {
    const { check } = await import("./tables.ts");
    return function (this: CliContext, flags: CheckFlags, ...paths: string[]) {
      return this.run(() => check(flags, paths, this.terminal));
    };
  },
  parameters: {
    positional: files,
    flags: {
      json,
      strict: { ...json, brief: "End with status 1 on warnings, too" },
      topology: {
        kind: "parsed",
        parse: asText,
        brief: "Topology file of the machine that the tables are for",
        placeholder: "FILE",
        optional: true,
      },
    },
  },
  docs: {
    brief: "Say what a kernel would reject or ignore, and why; status 1 on errors",
    customUsage: ["/sys/firmware/acpi/tables", "--strict --topology vm.yaml viot.aml"],
  },
});

/** The verbs below `tables`. */
export const tablesRoutes = buildRouteMap({
  routes: { build: buildVerb, dump: dumpVerb, check: checkVerb },
  docs: { brief: "Firmware tables: write them, show them, say what a kernel makes of them" },
});
