/**
 * Machine types of QEMU and the PCI functions that each has built in.
 *
 * Source: QEMU hw/i386/pc_q35.c, hw/i386/pc_piix.c, hw/arm/virt.c, hw/riscv/virt.c, system/vl.c
 * (which default devices an option takes away).
 */
import type { FirmwareKind } from "../topology/machine.ts";
import type { QemuCommand } from "./qemu-command.ts";
import { isOn, type QemuOption } from "./qemu-options.ts";

/** A machine type. */
export interface Board {
  readonly type: string;
  readonly values: ReadonlyMap<string, string>;
  readonly architecture: string;
  readonly firmware: FirmwareKind;
  /** Whether its built-in functions are known. */
  readonly isKnown: boolean;
}

/** A function that nobody asked for. */
export interface Builtin {
  /** Null takes the next free slot. */
  readonly addr: string | undefined;
  readonly vendor: number;
  readonly device: number;
  readonly classCode: number;
}

const INTEL = 0x8086;
const q35: readonly Builtin[] = [
  { addr: "0", vendor: INTEL, device: 0x29c0, classCode: 0x060000 },
  { addr: "1f.0", vendor: INTEL, device: 0x2918, classCode: 0x060100 },
];
const q35Sata = { addr: "1f.2", vendor: INTEL, device: 0x2922, classCode: 0x010601 };
const q35Smbus = { addr: "1f.3", vendor: INTEL, device: 0x2930, classCode: 0x0c0500 };
const pc: readonly Builtin[] = [
  { addr: "0", vendor: INTEL, device: 0x1237, classCode: 0x060000 },
  { addr: "1.0", vendor: INTEL, device: 0x7000, classCode: 0x060100 },
  { addr: "1.1", vendor: INTEL, device: 0x7010, classCode: 0x010180 },
  { addr: "1.3", vendor: INTEL, device: 0x7113, classCode: 0x068000 },
];
const gpex: readonly Builtin[] = [
  { addr: "0", vendor: 0x1b36, device: 0x0008, classCode: 0x060000 },
];
const vga = { addr: undefined, vendor: 0x1234, device: 0x1111, classCode: 0x030000 };
const networkCards = new Map([
  ["q35", { addr: undefined, vendor: INTEL, device: 0x10d3, classCode: 0x020000 }],
  ["pc", { addr: undefined, vendor: INTEL, device: 0x100e, classCode: 0x020000 }],
  ["virt", { addr: undefined, vendor: 0x1af4, device: 0x1000, classCode: 0x020000 }],
]);

/** The machine type of a command. */
export function boardOf({ program, options }: QemuCommand): Board {
  const values = new Map<string, string>();
  for (const option of options) {
    if (option.name === "machine") for (const [key, value] of option.values) values.set(key, value);
  }
  const named = values.get("type") ?? "";
  const architecture = architectureOf(program, named);
  const type = familyOf(named, architecture);
  const isArm = architecture === "aarch64";
  const hasAcpi = isOn(values, "acpi", true);
  const firmware = !hasAcpi && architecture !== "x86_64" ? "devicetree" : hasAcpi ? "acpi" : "none";
  return {
    type,
    values,
    architecture,
    firmware,
    isKnown: type === "q35" || type === "pc" || (type === "virt" && (isArm || firmware !== "none")),
  };
}

function architectureOf(program: string, type: string): string {
  const named = /qemu-system-(\w+)$/.exec(program)?.[1];
  if (named !== undefined) return named === "i386" ? "x86_64" : named;
  return /^virt(-|$)/.test(type) ? "aarch64" : "x86_64";
}

/** `pc-q35-9.2` is q35, `pc-i440fx-9.2` and nothing at all on x86 are pc. */
function familyOf(type: string, architecture: string): string {
  if (/^(pc-)?q35(-|$)/.test(type)) return "q35";
  if (/^(pc|pc-i440fx.*)$/.test(type)) return "pc";
  if (/^virt(-\d.*)?$/.test(type)) return "virt";
  if (type === "") return architecture === "x86_64" ? "pc" : "none";
  return type;
}

/** The functions in the order in which they take their slots. */
export function builtinsOf(board: Board, options: readonly QemuOption[]): Builtin[] {
  const { type, values } = board;
  const found: Builtin[] = [];
  if (type === "q35") {
    found.push(...q35);
    if (isOn(values, "sata", true)) found.push(q35Sata);
    if (isOn(values, "smbus", true)) found.push(q35Smbus);
  } else if (type === "pc") found.push(...pc);
  else if (type === "virt") found.push(...gpex);
  if (hasVga(type, options)) found.push(vga);
  const card = networkCards.get(type);
  if (card !== undefined && hasNetworkCard(options)) found.push(card);
  return found;
}

const ownVga = /^(VGA|cirrus-vga|qxl-vga|vmware-svga|virtio-vga(-gl)?|isa-vga|isa-cirrus-vga)$/;

function hasVga(type: string, options: readonly QemuOption[]): boolean {
  if (type !== "q35" && type !== "pc") return false;
  const asked = options.findLast(({ name }) => name === "vga")?.values.get("type");
  if (asked !== undefined) return asked !== "none";
  return !options.some(
    ({ name, values }) =>
      name === "nodefaults" || (name === "device" && ownVga.test(values.get("driver") ?? "")),
  );
}

function hasNetworkCard(options: readonly QemuOption[]): boolean {
  const asked = options.filter(({ name }) => name === "nic" || name === "net");
  if (asked.length > 0) {
    return asked.some(
      ({ name, values }) =>
        (name === "nic" && values.get("type") !== "none") || values.get("type") === "nic",
    );
  }
  return !options.some(({ name }) => name === "nodefaults" || name === "netdev");
}
