/** The grammar of the verbs `serve` and `vm`. */
import { buildCommand } from "@stricli/core";
import { parseDurationNs } from "./arguments.ts";
import { type CliContext, json } from "./context.ts";
import type { ServeFlags } from "./serve.ts";
import { machineFile, runtimeDir } from "./top-command.ts";
import type { VmFlags } from "./vm.ts";

const text = { kind: "parsed", parse: (value: string) => value, optional: true } as const;

export const serveCommand = buildCommand<ServeFlags, [file: string], CliContext>({
  loader: async () => {
    const { serve } = await import("./serve.ts");
    return function (this: CliContext, flags: ServeFlags, file: string) {
      return this.run(() => serve(flags, file, this.terminal));
    };
  },
  parameters: {
    positional: { kind: "tuple", parameters: [machineFile] },
    flags: {
      wait: { ...json, brief: "Serve nothing: end when another process does" },
      timeout: {
        kind: "parsed",
        parse: parseDurationNs,
        brief: "How long --wait waits; 30s when absent",
        placeholder: "TIME",
        optional: true,
      },
      runtimeDir,
      json: { ...json, brief: "Print the words that start QEMU as one JSON object" },
    },
  },
  docs: {
    brief: "Be the IOMMU and the disks of a virtual machine that somebody else starts",
    customUsage: ["vm.yaml", "--wait vm.yaml"],
  },
});

export const vmCommand = buildCommand<VmFlags, string[], CliContext>({
  loader: async () => {
    const { vm } = await import("./vm.ts");
    return function (this: CliContext, flags: VmFlags, file: string, ...words: string[]) {
      return this.run(() => vm(flags, file, words, this.terminal));
    } as (this: CliContext, flags: VmFlags, ...all: string[]) => Promise<void>;
  },
  parameters: {
    positional: {
      kind: "array",
      minimum: 1,
      parameter: {
        brief: "Machine file, then behind -- arguments for QEMU",
        placeholder: "MACHINE.yaml [-- QEMU ARGUMENTS]",
        parse: (value: string) => value,
      },
    },
    flags: {
      qemu: { ...text, brief: "QEMU to start: 10.1 or newer", placeholder: "PROGRAM" },
      kernel: { ...text, brief: "Kernel to boot instead of the file's", placeholder: "FILE" },
      initrd: { ...text, brief: "Initial RAM disk for it", placeholder: "FILE" },
      append: { ...text, brief: "Kernel command line", placeholder: "TEXT" },
      console: {
        ...text,
        brief: "File for the guest's console instead of this terminal",
        placeholder: "FILE",
      },
      runtimeDir,
      print: { ...json, brief: "Print the command line, start nothing" },
    },
  },
  docs: {
    brief: "Start a virtual machine whose IOMMU and disks are this stack",
    customUsage: ["vm.yaml", "vm.yaml -- -snapshot", "--kernel vmlinuz --append quiet vm.yaml"],
  },
});
