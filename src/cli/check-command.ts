/** The grammar of the verb `check`, and the flags that name a virtual machine. */
import { buildCommand } from "@stricli/core";
import { pciName } from "../iommu/pci-function.ts";
import { parseBdf } from "../topology/pci-address.ts";
import { parseSize } from "../units.ts";
import type { CheckFlags } from "./check.ts";
import { type CliContext, json } from "./context.ts";

const text = { kind: "parsed", parse: (value: string) => value, optional: true } as const;

/** Flags that name a virtual machine. */
export const vmFlags = {
  qemu: {
    ...text,
    brief: "A QEMU command line, quoted; or @FILE with one",
    placeholder: "CMDLINE",
  },
  pid: { ...text, brief: "A running QEMU", placeholder: "PID" },
  libvirt: { ...text, brief: "A libvirt domain, as virsh dumpxml prints it", placeholder: "FILE" },
} as const;

/** A function's name, in full. @throws Error */
function parseDevice(value: string): string {
  const address = parseBdf(value);
  if (address !== null) return pciName(address);
  throw new Error(`"${value}" is no PCI function; write it as 0000:03:00.0`);
}

/** The flag `--device`. */
export const deviceFlag = {
  kind: "parsed",
  parse: parseDevice,
  brief: "A device of the host that is to be handed through; repeatable",
  placeholder: "BDF",
  optional: true,
  variadic: ",",
} as const;

/** A size in bytes. @throws Error */
function parseBytes(value: string): bigint {
  const bytes = parseSize(value);
  if (bytes !== null) return bytes;
  throw new Error(`"${value}" is no size; write it as 8GiB or in bytes`);
}

/** A flag that is a size. */
export const sizeFlag = { kind: "parsed", parse: parseBytes, optional: true } as const;

export const checkCommand = buildCommand<CheckFlags, [], CliContext>({
  loader: async () => {
    const { check } = await import("./check.ts");
    return function (this: CliContext, flags: CheckFlags) {
      return this.run(() => check(flags, this.terminal));
    };
  },
  parameters: {
    flags: {
      ...vmFlags,
      root: {
        ...text,
        brief: "The host: a directory with its sys, or a capture",
        placeholder: "DIR",
      },
      device: deviceFlag,
      memlock: {
        ...sizeFlag,
        brief: "Memory that the virtual machine's process may lock",
        placeholder: "SIZE",
      },
      strict: {
        ...json,
        brief: "End with status 1 where an error or a warning is found",
      },
      json,
    },
  },
  docs: {
    brief: "What will fail, cost or not protect when devices go to a virtual machine",
    customUsage: [
      "--device 0000:03:00.0",
      "--pid 4711 --strict",
      "--root host.tar.gz --qemu @vm.sh",
    ],
  },
});
