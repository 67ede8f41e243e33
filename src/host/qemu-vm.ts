/**
 * Builds the virtual machine that a list of QEMU options describes, in the order in which QEMU
 * makes its devices.
 *
 * Source: QEMU system/vl.c:qemu_create_cli_devices (devices of key=value form, then drives of
 * `if=virtio`, then devices of JSON form), hw/i386/pc_q35.c, pc_piix.c, hw/arm/virt.c.
 */
import { type PciPortType, pciName } from "../iommu/pci-function.ts";
import { EMPTY_MACHINE, type Machine, type MachineFunction } from "../topology/machine.ts";
import { parseBdf } from "../topology/pci-address.ts";
import { TranslationMap } from "../topology/translation.ts";
import { NO_CONFIG } from "./config-space.ts";
import { type Builtin, boardOf, builtinsOf } from "./qemu-board.ts";
import { PlaceProblem, VmBuses, type VmFunction } from "./qemu-bus.ts";
import type { IgnoredArgument, QemuCommand } from "./qemu-command.ts";
import {
  canonicalDriver,
  type DeviceModel,
  isModernByName,
  isNoPci,
  modelOf,
  virtioKind,
} from "./qemu-devices.ts";
import { iommuKindOf, iommuOf, refusedIommu, unitName, viommuOf } from "./qemu-iommu.ts";
import { readMemory } from "./qemu-memory.ts";
import { isOn, type QemuOption, wholeNumber } from "./qemu-options.ts";
import { refusals } from "./qemu-refusals.ts";
import type { Exemption, HostPath, Viommu, VirtualMachine, VmDevice } from "./vm.ts";

/** ACS of a root port of QEMU: all that redirects, and what Linux switches on of it. */
const PORT_ACS = { capability: 0x5f, control: 0x1d };
const DEVICES_MAX = 1 << 16;
/** `numa_node=` that stands for none. */
const NO_NODE = 128;

/** A device under way. */
interface Draft {
  readonly option: QemuOption;
  readonly driver: string;
  readonly model: DeviceModel | null;
  readonly placed: VmFunction | null;
  readonly problem: string | null;
}

/** What is gathered while devices are made. */
class Assembly {
  readonly buses = new VmBuses();
  readonly drafts: Draft[] = [];
  readonly builtins = new Map<VmFunction, Builtin>();
  readonly ignored: IgnoredArgument[];
  /** The IOMMU, with its function where it is one. */
  iommu: { readonly option: QemuOption; readonly own: VmFunction | null } | null = null;

  constructor(ignored: readonly IgnoredArgument[]) {
    this.ignored = [...ignored];
  }
}

/** Builds it. @param host - what the host's machine says of devices that are handed through */
export function buildVm(command: QemuCommand, host: Machine | null = null): VirtualMachine {
  const { options } = command;
  const board = boardOf(command);
  const assembly = new Assembly(command.ignored);
  const { buses } = assembly;
  const isExpress = board.type !== "pc";
  buses.addRoot(isExpress ? "pcie.0" : "pci.0", {
    firstBus: 0,
    node: null,
    bypassesIommu: isOn(board.values, "default_bus_bypass_iommu", false),
    isExpress,
  });
  const root = buses.first;
  for (const builtin of builtinsOf(board, options)) {
    const placed = buses.place(root, "endpoint", builtin.addr, undefined);
    assembly.builtins.set(placed, builtin);
  }
  if (!board.isKnown) {
    const argument = `-machine ${board.type}`;
    assembly.ignored.push({ argument, why: "what this board has built in is not known" });
  }
  const onBoard = options.find((one) => one.name === "machine" && iommuKindOf(one) !== null);
  if (onBoard !== undefined) assembly.iommu = { option: onBoard, own: null };
  for (const option of inOrderOfCreation(options)) addDevice(assembly, option, board.type);
  assembly.ignored.push(...refusals(options, board));
  const memory = readMemory(options, board.type);
  const machine = { ...EMPTY_MACHINE, architecture: board.architecture, nodes: memory.nodes };
  const name = options.findLast((one) => one.name === "name")?.values.get("guest");
  const vm = {
    name: name ?? board.type,
    board: board.type,
    memoryBytes: memory.bytes,
    nodes: memory.vmNodes,
    memlockBytes: null,
    barMappings: null,
    libvirt: null,
    ignored: assembly.ignored,
  };
  return finish(assembly, { ...machine, firmware: board.firmware }, vm, host);
}

/** Devices in the order in which they get their slots. */
function inOrderOfCreation(options: readonly QemuOption[]): QemuOption[] {
  const devices = options.filter(({ name }) => name === "device").slice(0, DEVICES_MAX);
  const drives = options
    .filter(({ name, values }) => name === "drive" && values.get("if") === "virtio")
    .slice(0, DEVICES_MAX)
    .map((drive): QemuOption => {
      const values = new Map([["driver", "virtio-blk-pci"]]);
      const addr = drive.values.get("addr");
      if (addr !== undefined) values.set("addr", addr);
      return { ...drive, values };
    });
  return [
    ...devices.filter(({ isJson }) => !isJson),
    ...drives,
    ...devices.filter(({ isJson }) => isJson),
  ];
}

function addDevice(assembly: Assembly, option: QemuOption, board: string): void {
  const { values, text: argument } = option;
  const driver = canonicalDriver(values.get("driver") ?? "");
  const kind = iommuKindOf(option);
  const refusal = refusedIommu(option, kind, assembly.iommu?.option ?? null, {
    root: assembly.buses.hostBridges[0]!.bus.name,
    board,
  });
  if (refusal !== null) {
    assembly.ignored.push({ argument, why: refusal, isRefused: true });
    return;
  }
  // amd-iommu makes a function; the others that are no PCI devices need no place.
  if (kind === "vtd" || kind === "smmuv3") {
    assembly.iommu ??= { option, own: null };
    return;
  }
  if (kind !== "amd" && isNoPci(driver)) return;
  const model = kind === "amd" ? AMD_FUNCTION : modelOf(driver, false);
  if (model === null) {
    const isPlaced = values.has("addr") || /^pcie?\./.test(values.get("bus") ?? "");
    const why = isPlaced
      ? "this device model is not known; it keeps its place"
      : "this device model is not known, and nothing says that it is a PCI device";
    assembly.ignored.push({ argument, why });
    if (!isPlaced) return;
  }
  const { placed, problem } = placeOf(assembly, option, model, kind === "amd");
  if (problem !== null) assembly.ignored.push({ argument, why: problem, isRefused: true });
  if (kind !== null && placed !== null) assembly.iommu ??= { option, own: placed };
  assembly.drafts.push({ option, driver, model, placed, problem });
}

const AMD_FUNCTION: DeviceModel = {
  role: "endpoint",
  vendor: 0x1022,
  device: 0x1419,
  classCode: 0x080600,
};

function placeOf(
  { buses }: Assembly,
  { values }: QemuOption,
  model: DeviceModel | null,
  isOnRoot: boolean,
): { readonly placed: VmFunction | null; readonly problem: string | null } {
  const role = model?.role ?? "endpoint";
  const id = values.get("id");
  try {
    const bus = isOnRoot ? buses.hostBridges[0]!.bus : buses.named(values.get("bus"));
    if (role === "expander" && bus.bridge !== null) {
      throw new PlaceProblem("an expander sits on the root bus");
    }
    const placed = buses.place(bus, role, values.get("addr"), id);
    if (role === "expander") {
      const node = wholeNumber(values.get("numa_node"));
      buses.addRoot(id ?? `pxb.${buses.hostBridges.length}`, {
        firstBus: Math.min(wholeNumber(values.get("bus_nr")) ?? 0, 255),
        node: node === NO_NODE ? null : node,
        bypassesIommu: isOn(values, "bypass_iommu", false),
        isExpress: bus.isExpress,
      });
    }
    return { placed, problem: null };
  } catch (cause) {
    if (!(cause instanceof PlaceProblem)) throw cause;
    return { placed: null, problem: cause.message };
  }
}

type Facts = Omit<VirtualMachine, "machine" | "devices" | "viommu">;

function finish(
  assembly: Assembly,
  base: Machine,
  facts: Facts,
  host: Machine | null,
): VirtualMachine {
  const { buses, drafts } = assembly;
  const order = buses.number();
  const indexOf = new Map(order.map((placed, index) => [placed, index]));
  const draftOf = new Map(drafts.map((draft) => [draft.placed, draft]));
  const hosts = new Map(host?.functions.map((one) => [pciName(one), one]));
  const viommu = viommuFor(assembly, facts.board);
  const functions = order.map((placed) => {
    const bridge = placed.bus.bridge === null ? -1 : (indexOf.get(placed.bus.bridge) ?? -1);
    const draft = draftOf.get(placed) ?? null;
    const behind = hosts.get(draft === null ? "" : (hostOf(draft.option) ?? ""));
    const ids = assembly.builtins.get(placed) ?? (draft === null ? null : modelIn(draft));
    const made = functionOf(placed, ids, draft, viommu !== null);
    const node = buses.hostBridges[placed.bus.hostBridge]!.node;
    return { ...made, ...hostFacts(behind), bridge, node };
  });
  const machine: Machine = {
    ...base,
    hostBridges: buses.hostBridges.map(({ firstBus, lastBus, node, bypassesIommu }) => {
      const fixed = { segment: 0, ecamBase: null, windows: [], atsSupported: null };
      return { ...fixed, firstBus, lastBus, node, bypassesIommu };
    }),
    functions,
    iommus:
      viommu === null || assembly.iommu === null
        ? []
        : [iommuOf(viommu, assembly.iommu.own, buses.hostBridges, assembly.iommu.option.values)],
  };
  const map = new TranslationMap(machine);
  const devices = drafts
    .filter(({ model }) => model === null || !isBridge(model))
    .map((draft) => {
      const index = draft.placed === null ? -1 : (indexOf.get(draft.placed) ?? -1);
      return deviceOf(draft, index, { machine, map, viommu, iommu: assembly.iommu?.own ?? null });
    });
  return { ...facts, machine, devices, viommu };
}

function viommuFor({ iommu }: Assembly, board: string): Viommu | null {
  if (iommu === null) return null;
  const kind = iommuKindOf(iommu.option)!;
  const { own } = iommu;
  const name =
    own !== null && kind === "virtio"
      ? pciName({ segment: 0, bus: own.bus.number, devfn: own.devfn })
      : unitName(kind, 0);
  return viommuOf(iommu.option, kind, name, board);
}

function isBridge({ role }: DeviceModel): boolean {
  return role !== "endpoint" && role !== "express-endpoint" && role !== "virtio";
}

/** The model with the id that its properties and its bus give it. */
function modelIn({ driver, option, placed, model }: Draft): DeviceModel | null {
  if (virtioKind(driver) === null || placed === null) return model;
  return modelOf(driver, isModern(driver, option, placed));
}

/** QEMU drops the old interface below a port of PCI Express, unless it is asked for. */
function isModern(driver: string, { values }: QemuOption, { bus }: VmFunction): boolean {
  return (
    isModernByName(driver) ?? isOn(values, "disable-legacy", bus.isExpress && bus.bridge !== null)
  );
}

function functionOf(
  placed: VmFunction,
  ids: Pick<DeviceModel, "vendor" | "device" | "classCode"> | null,
  draft: Draft | null,
  hasIommu: boolean,
): MachineFunction {
  const { bus, devfn, secondary } = placed;
  const values = draft?.option.values ?? new Map<string, string>();
  const isPort = placed.role === "root-port" || placed.role === "downstream";
  const hasAcs = placed.role === "root-port" && !isOn(values, "disable-acs", false);
  const others = [...bus.functions.keys()].some((one) => one !== devfn && one >> 3 === devfn >> 3);
  return {
    ...NO_CONFIG,
    ...(ids === null ? {} : { vendor: ids.vendor, device: ids.device, classCode: ids.classCode }),
    segment: 0,
    bus: bus.number,
    devfn,
    portType: portTypeOf(placed),
    header: secondary === null ? "endpoint" : "bridge",
    secondaryBus: secondary === null ? -1 : secondary.number,
    subordinateBus: placed.subordinate,
    isMultifunction: others || isOn(values, "multifunction", false),
    acs: isPort && hasAcs ? { ...PORT_ACS, control: hasIommu ? PORT_ACS.control : 0 } : null,
    ats: isOn(values, "ats", false)
      ? { enabled: false, queueDepth: 32, pageAligned: true, unitShift: 12 }
      : null,
    bridge: -1,
    node: null,
    bars: [],
    physicalFunction: -1,
    configRead: "extended",
    isUntrusted: false,
    driver: null,
    iommu: null,
    group: null,
  };
}

function portTypeOf({ role, bus }: VmFunction): PciPortType {
  switch (role) {
    case "root-port":
    case "upstream":
    case "downstream":
    case "pcie-to-pci-bridge":
      return role;
    case "virtio":
      return bus.isExpress && bus.bridge !== null ? "endpoint" : "conventional";
    case "express-endpoint":
      return !bus.isExpress ? "conventional" : bus.bridge === null ? "rc-endpoint" : "endpoint";
    default:
      return "conventional";
  }
}

/** What the guest sees of a device that is handed through. */
function hostFacts(behind: MachineFunction | undefined): Partial<MachineFunction> {
  if (behind === undefined) return {};
  const { vendor, device, subsystemVendor, subsystemDevice, revision, classCode } = behind;
  return { vendor, device, subsystemVendor, subsystemDevice, revision, classCode };
}

/** The host's device that is handed through, or the socket that stands for one. */
function hostOf({ values }: QemuOption): string | null {
  const driver = values.get("driver") ?? "";
  if (driver === "vfio-user-pci") return values.get("socket.path") ?? values.get("socket") ?? "?";
  if (!/^vfio-pci/.test(driver)) return null;
  const text = values.get("host") ?? values.get("sysfsdev")?.replace(/^.*\//, "");
  if (text === undefined) return values.get("fd") === undefined ? null : "?";
  const address = parseBdf(text);
  return address === null ? text : pciName(address);
}

function pathOf({ values }: QemuOption): HostPath | null {
  const driver = values.get("driver") ?? "";
  if (driver === "vfio-user-pci") return "vfio-user";
  if (!/^vfio-pci/.test(driver)) return null;
  return values.has("iommufd") ? "iommufd" : "type1";
}

interface Surroundings {
  readonly machine: Machine;
  readonly map: TranslationMap;
  readonly viommu: Viommu | null;
  readonly iommu: VmFunction | null;
}

function deviceOf(draft: Draft, index: number, around: Surroundings): VmDevice {
  const { option, driver, placed, problem } = draft;
  const { machine, map, viommu, iommu } = around;
  const found = index < 0 ? null : map.of(index);
  const isIommu = placed !== null && placed === iommu;
  const accessPlatform =
    virtioKind(driver) === null || isIommu ? null : isOn(option.values, "iommu_platform", false);
  const isBypassed = placed !== null && machine.hostBridges[placed.bus.hostBridge]!.bypassesIommu;
  const exemption: Exemption | null =
    viommu === null
      ? "no-iommu"
      : isIommu
        ? "is-the-iommu"
        : isBypassed
          ? "bypassed-bus"
          : found === null
            ? "not-covered"
            : accessPlatform === false
              ? "no-access-platform"
              : null;
  const pci = machine.functions[index];
  return {
    id: option.values.get("id") ?? null,
    driver,
    index,
    bdf: pci === undefined ? null : pciName(pci),
    problem,
    host: hostOf(option),
    path: pathOf(option),
    accessPlatform,
    ats: isOn(option.values, "ats", false),
    iommu: found === null || isIommu ? null : machine.iommus[found.iommu]!.name,
    exemption,
    argument: option.text,
  };
}
