/** The grammar of the verb `run`. */
import { buildCommand } from "@stricli/core";
import { parseDurationNs, parseSeed } from "./arguments.ts";
import { type CliContext, json } from "./context.ts";
import type { RunFlags } from "./run-input.ts";

const text = { kind: "parsed", parse: (value: string) => value, optional: true } as const;

export const runCommand = buildCommand<RunFlags, [file?: string], CliContext>({
  loader: async () => {
    const { runWorkload } = await import("./run.ts");
    return function (this: CliContext, flags: RunFlags, file?: string) {
      return this.run(() => runWorkload(flags, file, this.terminal));
    };
  },
  parameters: {
    positional: {
      kind: "tuple",
      parameters: [
        {
          brief: "A fio job file, or a scenario in YAML; - is standard input",
          placeholder: "JOB.fio|SCENARIO.yaml",
          parse: (value: string) => value,
          optional: true,
        },
      ],
    },
    flags: {
      machine: {
        ...text,
        brief: "Machine to run on: the name of one that is built in, or a profile in YAML",
        placeholder: "NAME|FILE",
      },
      policy: {
        kind: "parsed",
        parse: (value: string) => value,
        brief: "Policies to compare, separated by commas; repeatable; all when absent",
        placeholder: "NAME",
        optional: true,
        variadic: ",",
      },
      section: {
        ...text,
        brief: "Sections of the job file to run, as fio's --section; all when absent",
        placeholder: "NAME",
        variadic: ",",
      },
      seed: {
        kind: "parsed",
        parse: parseSeed,
        brief: "Seed of what is random; 1 when absent",
        placeholder: "N",
        optional: true,
      },
      time: {
        kind: "parsed",
        parse: parseDurationNs,
        brief: "Virtual time of each run; as long as it takes to settle when absent",
        placeholder: "TIME",
        optional: true,
      },
      json,
      csv: { ...json, brief: "Print CSV" },
      html: { ...json, brief: "Print one HTML file with charts" },
      perfetto: {
        ...text,
        brief: "Write a timeline of CPUs and locks for ui.perfetto.dev, too",
        placeholder: "FILE",
      },
      printMachine: { ...json, brief: "Print the machine as a profile to change, and run nothing" },
    },
  },
  docs: {
    brief: "Predict what a policy does to a workload: throughput, latency, where the time went",
    customUsage: [
      "job.fio --machine flush-queue-desktop",
      "job.fio --machine mine.yaml --policy strict,lazy-mq --section randwrite",
      "scenario.yaml --html > report.html",
      "--machine two-node-server --print-machine > mine.yaml",
    ],
  },
});
