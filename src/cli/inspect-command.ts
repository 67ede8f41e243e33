/** The grammar of the verb `inspect`. */
import { buildCommand } from "@stricli/core";
import { deviceFlag, sizeFlag, vmFlags } from "./check-command.ts";
import { type CliContext, json } from "./context.ts";
import type { InspectFlags } from "./inspect.ts";

const text = { kind: "parsed", parse: (value: string) => value, optional: true } as const;

const CPUS_MAX = 4096;

/** A count of CPUs. @throws Error */
function parseCount(value: string): number {
  const count = /^\d{1,4}$/.test(value) ? Number(value) : 0;
  if (count > 0 && count <= CPUS_MAX) return count;
  throw new Error(`"${value}" is no number from 1 to ${CPUS_MAX}`);
}

export const inspectCommand = buildCommand<InspectFlags, [file?: string], CliContext>({
  loader: async () => {
    const { inspect } = await import("./inspect.ts");
    return function (this: CliContext, flags: InspectFlags, file?: string) {
      return this.run(() => inspect(flags, file, this.terminal));
    };
  },
  parameters: {
    positional: {
      kind: "tuple",
      parameters: [
        {
          brief: "A capture, a .tar.gz of /sys, or the XML of lstopo; - is standard input",
          placeholder: "FILE",
          parse: (value: string) => value,
          optional: true,
        },
      ],
    },
    flags: {
      root: {
        ...text,
        brief: "Directory that has a host's sys in it, instead of this host",
        placeholder: "DIR",
      },
      capture: {
        ...text,
        brief: "Write what the report needs, and nothing secret, to an archive",
        placeholder: "OUT.tar.gz",
      },
      ...vmFlags,
      emit: {
        ...text,
        brief: "Print the arguments that give a VM this topology: qemu or libvirt",
        placeholder: "FORM",
      },
      device: { ...deviceFlag, brief: "A device for --emit; repeatable" },
      iommu: {
        ...text,
        brief: "For --emit: the guest's IOMMU, none, virtio, intel or amd (default none)",
        placeholder: "KIND",
      },
      memory: {
        ...sizeFlag,
        brief: "For --emit: the guest's memory (default half of the nodes')",
        placeholder: "SIZE",
      },
      cpus: {
        kind: "parsed",
        parse: parseCount,
        brief: "For --emit: the guest's CPUs (default the nodes')",
        placeholder: "N",
        optional: true,
      },
      json,
      yaml: { ...json, brief: "Print the machine as a topology file" },
      svg: { ...json, brief: "Print a drawing as SVG" },
    },
  },
  docs: {
    brief: "A host's topology: nodes, IOMMUs, devices, groups, and where page tables live",
    customUsage: ["", "--root captured/", "host.tar.gz --json", "--capture host.tar.gz"],
  },
});
