/** The grammar of the verb `measure`. */
import { buildCommand } from "@stricli/core";
import { parseDurationNs } from "./arguments.ts";
import { type CliContext, json } from "./context.ts";
import type { MeasureFlags } from "./measure.ts";
import { runtimeDir } from "./top-command.ts";

const text = { kind: "parsed", parse: (value: string) => value, optional: true } as const;
const ROUNDS_MAX = 1000;

function parseRounds(value: string): number {
  const rounds = /^\d{1,4}$/.test(value) ? Number(value) : 0;
  if (rounds >= 1 && rounds <= ROUNDS_MAX) return rounds;
  throw new Error(`a number of rounds is 1 to ${ROUNDS_MAX}, not "${value}"`);
}

export const measureCommand = buildCommand<MeasureFlags, [file?: string], CliContext>({
  loader: async () => {
    const { measureVerb } = await import("./measure.ts");
    return function (this: CliContext, flags: MeasureFlags, file?: string) {
      return this.run(() => measureVerb(flags, file, this.terminal));
    };
  },
  parameters: {
    positional: {
      kind: "tuple",
      parameters: [
        {
          brief: "A fio job file instead of that of the published comparison",
          placeholder: "JOB.fio",
          parse: (value: string) => value,
          optional: true,
        },
      ],
    },
    flags: {
      disk: {
        ...text,
        brief: "Disks to measure: virtio-blk, nvme; both when absent",
        placeholder: "KIND",
        variadic: ",",
      },
      section: {
        ...text,
        brief: "Jobs of the file to run; all when absent",
        placeholder: "NAME",
        variadic: ",",
      },
      rounds: {
        kind: "parsed",
        parse: parseRounds,
        brief: "Interleaved rounds; 3 when absent",
        placeholder: "N",
        optional: true,
      },
      runtime: {
        kind: "parsed",
        parse: parseDurationNs,
        brief: "Time of each run, whole seconds; 3s when absent",
        placeholder: "TIME",
        optional: true,
      },
      doorbell: {
        ...text,
        brief: "How kicks arrive: message, or page (burns a processor); message when absent",
        placeholder: "KIND",
      },
      accelerator: { ...text, brief: "tcg or kvm; tcg when absent", placeholder: "NAME" },
      record: {
        ...text,
        brief: "Write a trace of a strict run of each job there, and predict lazy from it",
        placeholder: "DIR",
      },
      qemu: { ...text, brief: "QEMU to start: 10.1 or newer", placeholder: "PROGRAM" },
      fetch: { ...json, brief: "Fetch QEMU, kernel, busybox and fio where they are missing" },
      console: { ...text, brief: "File for the guest's console", placeholder: "FILE" },
      runtimeDir,
      json,
    },
  },
  docs: {
    brief: "What identity, lazy and strict cost in a real guest, behind this IOMMU",
    customUsage: ["--fetch", "--disk nvme --rounds 5", "--record traces my.fio"],
  },
});
