/** The command line's grammar: verbs, their flags and arguments. A verb's code loads when it runs. */
import {
  type Application,
  ArgumentScannerError,
  buildApplication,
  buildCommand,
  buildRouteMap,
  formatMessageForArgumentScannerError,
  help,
  text_en,
  version,
} from "@stricli/core";
import { suggestion } from "../config/nearest.ts";
import { parseDurationNs, parseIommu, parsePolicy, parseQueueSize } from "./arguments.ts";
import { checkCommand } from "./check-command.ts";
import { type CliContext, json } from "./context.ts";
import { explainCommand } from "./explain-command.ts";
import { inspectCommand } from "./inspect-command.ts";
import { measureCommand } from "./measure-command.ts";
import type { ReplayFlags } from "./replay.ts";
import { reproduceCommand } from "./reproduce-command.ts";
import { runCommand } from "./run-command.ts";
import { serveCommand, vmCommand } from "./serve-command.ts";
import { tablesRoutes } from "./tables-command.ts";
import { topCommand } from "./top-command.ts";
import type { VerifyFlags } from "./verify.ts";

const recordings = {
  kind: "array",
  minimum: 1,
  parameter: {
    brief: "File to read, also gzip; - is standard input",
    placeholder: "RECORDING",
    parse: (text: string) => text,
  },
} as const;

const replayCommand = buildCommand<ReplayFlags, string[], CliContext>({
  loader: async () => {
    const { replay } = await import("./replay.ts");
    return function (this: CliContext, flags: ReplayFlags, ...files: string[]) {
      return this.run(() => replay(flags, files, this.terminal));
    };
  },
  parameters: {
    positional: recordings,
    flags: {
      policy: {
        kind: "parsed",
        parse: parsePolicy,
        brief: "Policies to compare, separated by commas; repeatable; all when absent",
        placeholder: "NAME",
        optional: true,
        variadic: ",",
      },
      iommu: {
        kind: "parsed",
        parse: parseIommu,
        brief: "The IOMMU to run on: virtio or hardware (VT-d second stage)",
        placeholder: "KIND",
        default: "virtio",
      },
      fqSize: {
        kind: "parsed",
        parse: parseQueueSize,
        brief: "Slots of a flush queue (a power of two) instead of 256 per CPU or 32768 in one",
        placeholder: "N",
        optional: true,
      },
      fqTimeout: {
        kind: "parsed",
        parse: parseDurationNs,
        brief:
          "Flush timeout instead of 10ms per CPU or 1s in one; whole ticks of 4ms, and one more",
        placeholder: "TIME",
        optional: true,
      },
      json,
      csv: { kind: "boolean", brief: "Print CSV", default: false, withNegated: false },
    },
  },
  docs: {
    brief: "What-if: one recording under several mapping policies, side by side",
    customUsage: [
      "trace.txt.gz",
      "--policy strict,lazy-mq+map --iommu hardware trace.txt",
      "--json - < trace.txt",
    ],
  },
});

const verifyCommand = buildCommand<VerifyFlags, string[], CliContext>({
  loader: async () => {
    const { verify } = await import("./verify.ts");
    return function (this: CliContext, flags: VerifyFlags, ...files: string[]) {
      return this.run(() => verify(flags, files, this.terminal));
    };
  },
  parameters: { positional: recordings, flags: { json } },
  docs: {
    brief: "Does the stack behave as the recorded system did? Every divergence, with its line",
    customUsage: ["qemu-virtio-iommu.log.gz trace-from-boot.txt.gz", "--json requests.jsonl.gz"],
  },
});

const verbs = [
  "replay",
  "verify",
  "run",
  "reproduce",
  "inspect",
  "explain",
  "tables",
  "serve",
  "vm",
  "top",
  "measure",
  "build",
  "dump",
  "check",
  "help",
];

const text: typeof text_en = {
  ...text_en,
  noCommandRegisteredForInput: ({ input }) =>
    `iommukit: there is no verb "${input}"${suggestion(input, verbs)}\n` +
    `  hint: \`iommukit help\` lists the verbs`,
  exceptionWhileParsingArguments: (thrown) =>
    `iommukit: ${argumentMessage(thrown)}\n  hint: add --help to see what is accepted`,
};

function argumentMessage(thrown: unknown): string {
  if (thrown instanceof ArgumentScannerError) {
    return formatMessageForArgumentScannerError(thrown, {
      ArgumentParseError: ({ exception }) =>
        exception instanceof Error ? exception.message : String(exception),
    });
  }
  return thrown instanceof Error ? thrown.message : String(thrown);
}

/** Builds the application. @param currentVersion - as package.json has it */
export function buildApp(getCurrentVersion: () => Promise<string>): Application<CliContext> {
  const root = buildRouteMap({
    routes: {
      replay: replayCommand,
      verify: verifyCommand,
      run: runCommand,
      reproduce: reproduceCommand,
      inspect: inspectCommand,
      check: checkCommand,
      explain: explainCommand,
      tables: tablesRoutes,
      serve: serveCommand,
      vm: vmCommand,
      top: topCommand,
      measure: measureCommand,
    },
    docs: { brief: "An IOMMU you can run, checked against recordings of real machines" },
  });
  return buildApplication<CliContext>(
    root,
    {
      name: "iommukit",
      scanner: { caseStyle: "allow-kebab-for-camel", allowArgumentEscapeSequence: true },
      localization: { text },
    },
    {
      help: help({
        brief: "Print help and exit",
        defaultForRouteMap: true,
        formatting: {
          caseStyle: "convert-camel-to-kebab",
          onlyRequiredInUsageLine: true,
          useAliasInUsageLine: false,
        },
      }),
      version: version({ info: { getCurrentVersion }, brief: "Print the version and exit" }),
    },
  );
}
