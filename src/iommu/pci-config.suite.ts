/** Reads PCI functions out of recorded configuration space, for tests that compare groups. */
import type { AcsRegisters, PciFunction, PciPortType } from "./pci-function.ts";

/** A function as a recording has it. */
export interface RecordedFunction {
  readonly name: string;
  readonly parent: string | null;
  /** Configuration space, 256 or 4096 bytes. */
  readonly config: DataView;
}

const portTypes = new Map<number, PciPortType>([
  [0, "endpoint"],
  [1, "legacy-endpoint"],
  [4, "root-port"],
  [5, "upstream"],
  [6, "downstream"],
  [7, "pcie-to-pci-bridge"],
  [8, "pci-to-pcie-bridge"],
  [9, "rc-endpoint"],
  [10, "rc-event-collector"],
]);

function portTypeOf(config: DataView): PciPortType {
  let at = (config.getUint16(6, true) & 0x10) === 0 ? 0 : config.getUint8(0x34) & 0xfc;
  for (let hops = 0; at >= 0x40 && hops < 48; hops += 1) {
    if (config.getUint8(at) === 0x10) {
      return portTypes.get((config.getUint16(at + 2, true) >> 4) & 15) ?? "endpoint";
    }
    at = config.getUint8(at + 1) & 0xfc;
  }
  return "conventional";
}

function acsOf(config: DataView): AcsRegisters | null {
  let at = config.byteLength > 0x100 ? 0x100 : 0;
  for (let hops = 0; at >= 0x100 && hops < 960; hops += 1) {
    const head = config.getUint32(at, true);
    if ((head & 0xffff) === 0x0d) {
      const capability = config.getUint16(at + 4, true);
      return { capability, control: config.getUint16(at + 6, true) };
    }
    at = (head >>> 20) & 0xffc;
  }
  return null;
}

/** Class code of a function. */
export function classOf(config: DataView): number {
  return config.getUint32(8, true) >>> 8;
}

/** The functions as the grouping rules take them, in the same order. */
export function readFunctions(recorded: readonly RecordedFunction[]): PciFunction[] {
  return recorded.map(({ name, parent, config }) => {
    const [segment, bus, slot, number] = name
      .split(/[:.]/)
      .map((part) => Number.parseInt(part, 16));
    const header = config.getUint8(0x0e);
    return {
      segment: segment!,
      bus: bus!,
      devfn: slot! * 8 + number!,
      portType: portTypeOf(config),
      isMultifunction: (header & 0x80) !== 0 || number! > 0,
      acs: acsOf(config),
      bridge: parent === null ? -1 : recorded.findIndex((each) => each.name === parent),
      secondaryBus: (header & 0x7f) === 1 ? config.getUint8(0x19) : -1,
    };
  });
}
