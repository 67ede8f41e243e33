/**
 * The kernel's command line as a description: virtio-mmio devices, and the proposed argument for an
 * IOMMU among them.
 */
import {
  EMPTY_MACHINE,
  type Machine,
  type PlatformDevice,
  type VirtioMmioIommu,
} from "../../topology/machine.ts";
import { cannotDescribe } from "../build-error.ts";
import type { DescriptionFamily, DescriptionKind } from "../table-description.ts";
import {
  COMMAND_LINE_MAX,
  type CommandLineDevice,
  type CommandLineReading,
  deviceText,
  endpointText,
  readCommandLine,
} from "./parameter.ts";

const AS = "cmdline";

/** Describes a machine's virtio-mmio devices. @throws StackError `firmware/cannot-describe` */
export function buildCommandLine(machine: Machine): string {
  const iommus = machine.iommus.filter((one) => one.kind === "virtio-mmio");
  const wide = iommus.find(({ translates }) => translates.length > 0);
  if (wide !== undefined || iommus.length < machine.iommus.length) {
    const message = "an IOMMU of PCI functions cannot stand on a command line";
    throw cannotDescribe(AS, message, "describe it with viot or dtb");
  }
  const devices: CommandLineDevice[] = [];
  const add = ({ registers, interrupts }: Pick<PlatformDevice, "registers" | "interrupts">) => {
    const [range] = registers;
    const [interrupt] = interrupts;
    if (range === undefined || interrupt === undefined || interrupt === 0) {
      const message = `virtio-mmio device ${devices.length} needs registers and an interrupt`;
      throw cannotDescribe(AS, message, "interrupt 0 counts as none");
    }
    const known = devices.findIndex(({ base }) => base === range.start);
    if (known >= 0) return known;
    const { start: base, last } = range;
    devices.push({ id: devices.length, base, bytes: last - base + 1n, interrupt });
    return devices.length - 1;
  };
  const lines = iommus.flatMap(({ registers, interrupts, endpoints }) => {
    const iommu = add({ registers: [registers], interrupts });
    return endpoints.map(({ id: endpoint, base }) => endpointText({ iommu, endpoint, base }));
  });
  const isVirtio = ({ identity }: PlatformDevice) =>
    identity === null || identity === "LNRO0005" || identity === "virtio,mmio";
  for (const device of machine.platformDevices.filter(isVirtio)) add(device);
  return `${[...devices.map(deviceText), ...lines].join(" ")}\n`;
}

/** The machine that a command line describes, the proposed argument included. */
export function commandLineMachine({ devices, endpoints }: CommandLineReading): Machine {
  const platformDevices = devices.map(
    ({ id, base, bytes, interrupt }): PlatformDevice => ({
      name: `virtio-mmio.${id}`,
      path: null,
      identity: "virtio,mmio",
      registers: bytes > 0n ? [{ start: base, last: base + bytes - 1n }] : [],
      interrupts: [interrupt],
      node: null,
      driver: null,
      iommu: null,
      group: null,
    }),
  );
  const ids = [...new Set(endpoints.map(({ iommu }) => iommu))];
  const iommus = ids.flatMap((id): VirtioMmioIommu[] => {
    const device = platformDevices.find(({ name }) => name === `virtio-mmio.${id}`);
    const registers = device?.registers[0];
    if (device === undefined || registers === undefined) return [];
    const own = endpoints.filter(({ iommu }) => iommu === id);
    return [
      {
        kind: "virtio-mmio",
        name: device.name,
        node: null,
        includesRest: false,
        translates: [],
        endpoints: own.map(({ endpoint, base }) => ({ base, id: endpoint, path: null })),
        interruptSources: [],
        registers,
        interrupts: device.interrupts,
      },
    ];
  });
  return { ...EMPTY_MACHINE, platformDevices, iommus };
}

const textOf = (bytes: Uint8Array) => new TextDecoder().decode(bytes.subarray(0, COMMAND_LINE_MAX));

/** Command lines: text with a virtio-mmio device on it. */
export const commandLineFamily: DescriptionFamily = {
  name: "cmdline",
  brief: "a kernel command line with virtio-mmio devices",
  recognises: (bytes) => /(^|\s)virtio[_-]mmio\.(device|iommu)=/.test(textOf(bytes)),
  read(files) {
    let machine = EMPTY_MACHINE;
    const documents = files.map(({ file, bytes }) => {
      const reading = readCommandLine(textOf(bytes));
      machine = commandLineMachine(reading);
      const texts = [...reading.devices.map(deviceText), ...reading.endpoints.map(endpointText)];
      const fields = texts.map((text) => {
        const [name, value] = text.split("=") as [string, string];
        return {
          at: 0,
          length: text.length,
          name,
          value,
          text: value,
          doc: "as the kernel reads it",
        };
      });
      const title = "kernel command line";
      const tree = () => ({ at: 0, length: bytes.length, name: AS, title, fields, items: [] });
      return { file, kind: AS, bytes: bytes.length, tree, findings: reading.findings };
    });
    return { documents, machine };
  },
};

/** Command lines that can be written. */
export const commandLineKinds: readonly DescriptionKind[] = [
  {
    name: AS,
    brief: "virtio-mmio on the kernel's command line; its IOMMU argument is a proposal",
    isText: true,
    build: (machine) => new TextEncoder().encode(buildCommandLine(machine)),
  },
];
