/**
 * A function's PCI configuration space: the header, and those capabilities that decide about DMA.
 *
 * Only what is needed is read, in small pieces: reading a live device takes about a microsecond for
 * each four bytes, and a capture holds what was read and nothing else (no serial number, no vital
 * product data). Source: PCI Express Base specification 6.0, 7.5 (header, PCI Express capability),
 * 7.7.11 (ACS), 7.8.8 (PASID), 9.3.3 (SR-IOV), 10.5 (ATS, PRI); Linux uapi/linux/pci_regs.h.
 */
import type { PciPortType } from "../iommu/pci-function.ts";
import type { BridgeWindow, MachineFunction } from "../topology/machine.ts";
import { hasWideAcs } from "../topology/pci-quirks.ts";
import type { HostFile } from "./tree.ts";

/** What configuration space tells. */
export type ConfigFacts = Pick<
  MachineFunction,
  | "vendor"
  | "device"
  | "subsystemVendor"
  | "subsystemDevice"
  | "revision"
  | "classCode"
  | "header"
  | "secondaryBus"
  | "subordinateBus"
  | "windows"
  | "portType"
  | "isMultifunction"
  | "acs"
  | "ats"
  | "pri"
  | "pasid"
  | "sriov"
  | "configRead"
>;

const HEADER_BYTES = 64;
/** Capabilities are at least 4 bytes, so that more than this many make a loop. */
const CAPABILITIES_MAX = 48;
const EXTENDED_MAX = 960;

const CAP_SUBSYSTEM = 0x0d;
const CAP_EXPRESS = 0x10;
const EXT_ACS = 0x0d;
const EXT_ATS = 0x0f;
const EXT_SRIOV = 0x10;
const EXT_PRI = 0x13;
const EXT_PASID = 0x1b;
const WIDE_ACS_BYTES = 12;
/** Bytes behind the header of each extended capability that are read. */
const extendedBytes = new Map([
  [EXT_ACS, 8],
  [EXT_ATS, 8],
  [EXT_SRIOV, 28],
  [EXT_PRI, 16],
  [EXT_PASID, 8],
]);

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

/** Facts of a function whose configuration space nobody could read. */
export const NO_CONFIG: ConfigFacts = {
  vendor: 0xffff,
  device: 0xffff,
  subsystemVendor: 0,
  subsystemDevice: 0,
  revision: 0,
  classCode: 0,
  header: "endpoint",
  secondaryBus: -1,
  subordinateBus: -1,
  windows: [],
  portType: "conventional",
  isMultifunction: false,
  acs: null,
  ats: null,
  pri: null,
  pasid: null,
  sriov: null,
  configRead: "none",
};

/** Facts under way. */
type Draft = { -readonly [Key in keyof ConfigFacts]: ConfigFacts[Key] };

/** Reads a function's configuration space; what lies beyond the end of `file` is unknown. */
export function readConfig(file: HostFile): ConfigFacts {
  const bytes = file.read(0, HEADER_BYTES);
  if (bytes.length < HEADER_BYTES) return NO_CONFIG;
  const view = viewOf(bytes);
  const kind = view.getUint8(0x0e) & 0x7f;
  const facts: Draft = { ...NO_CONFIG };
  facts.vendor = view.getUint16(0, true);
  facts.device = view.getUint16(2, true);
  if (kind === 0) {
    facts.subsystemVendor = view.getUint16(0x2c, true);
    facts.subsystemDevice = view.getUint16(0x2e, true);
  }
  facts.revision = view.getUint8(8);
  facts.classCode = view.getUint32(8, true) >>> 8;
  facts.header = kind === 1 ? "bridge" : kind === 2 ? "cardbus" : "endpoint";
  if (kind === 1) {
    facts.secondaryBus = view.getUint8(0x19);
    facts.subordinateBus = view.getUint8(0x1a);
    facts.windows = windowsOf(view);
  }
  facts.isMultifunction = (view.getUint8(0x0e) & 0x80) !== 0;
  facts.configRead = "header";
  const hasCapabilities = (view.getUint8(6) & 0x10) !== 0;
  readCapabilities(file, facts, hasCapabilities ? view.getUint8(0x34) : 0);
  return facts;
}

function readCapabilities(file: HostFile, facts: Draft, first: number): void {
  // An ordinary user gets 64 bytes, whatever the size of the file.
  if (file.read(HEADER_BYTES, 4).length < 4) return;
  facts.configRead = "conventional";
  let at = first & 0xfc;
  for (let hops = 0; at >= 0x40 && hops < CAPABILITIES_MAX; hops += 1) {
    const bytes = file.read(at, 8);
    if (bytes.length < 8) return;
    if (bytes[0] === CAP_SUBSYSTEM) {
      const view = viewOf(bytes);
      facts.subsystemVendor = view.getUint16(4, true);
      facts.subsystemDevice = view.getUint16(6, true);
    } else if (bytes[0] === CAP_EXPRESS) {
      facts.portType = portTypes.get((bytes[2]! >> 4) & 15) ?? "endpoint";
    }
    at = bytes[1]! & 0xfc;
  }
  // Without an Express capability there is no extended space to look for.
  if (facts.portType !== "conventional") readExtended(file, facts);
}

function readExtended(file: HostFile, facts: Draft): void {
  let at = 0x100;
  for (let hops = 0; at >= 0x100 && hops < EXTENDED_MAX; hops += 1) {
    const head = file.read(at, 4);
    if (head.length < 4) return;
    facts.configRead = "extended";
    const word = viewOf(head).getUint32(0, true);
    // All ones: the space exists and the device does not answer.
    if (word === 0xffff_ffff) return;
    const id = word & 0xffff;
    const bytes = id === EXT_ACS && hasWideAcs(facts) ? WIDE_ACS_BYTES : extendedBytes.get(id);
    if (bytes !== undefined) {
      const body = file.read(at, bytes);
      if (body.length === bytes) takeExtended(id, viewOf(body), facts);
    }
    at = (word >>> 20) & 0xffc;
  }
}

function takeExtended(id: number, view: DataView, found: Draft): void {
  const capability = view.getUint16(4, true);
  const control = view.getUint16(6, true);
  if (id === EXT_ACS) {
    found.acs ??= { capability, control: hasWideAcs(found) ? view.getUint16(8, true) : control };
  } else if (id === EXT_ATS) {
    found.ats ??= {
      enabled: (control & 0x8000) !== 0,
      queueDepth: (capability & 0x1f) === 0 ? 32 : capability & 0x1f,
      pageAligned: (capability & 0x20) !== 0,
      unitShift: 12 + (control & 0x1f),
    };
  } else if (id === EXT_PRI) {
    // Here the control register comes first, then the status.
    found.pri ??= {
      enabled: (capability & 1) !== 0,
      requestsMax: view.getUint32(8, true),
      requestsAllocated: view.getUint32(12, true),
      pasidRequired: (control & 0x8000) !== 0,
    };
  } else if (id === EXT_PASID) {
    found.pasid ??= {
      enabled: (control & 1) !== 0,
      bits: (capability >> 8) & 0x1f,
      execute: (capability & 2) !== 0,
      privileged: (capability & 4) !== 0,
    };
  } else if (id === EXT_SRIOV) {
    found.sriov ??= {
      totalVfs: view.getUint16(0x0e, true),
      vfs: view.getUint16(0x10, true),
      firstVfOffset: view.getUint16(0x14, true),
      vfStride: view.getUint16(0x16, true),
      vfDevice: view.getUint16(0x1a, true),
    };
  }
}

/** Windows of a PCI-to-PCI bridge; those whose last address lies before the first are off. */
function windowsOf(view: DataView): BridgeWindow[] {
  const windows: BridgeWindow[] = [];
  const add = (kind: BridgeWindow["kind"], start: bigint, last: bigint) => {
    if (last > start) windows.push({ kind, start, last });
  };
  const io = (at: number, high: number) =>
    (BigInt(view.getUint16(high, true)) << 16n) | (BigInt(view.getUint8(at) & 0xf0) << 8n);
  const ioStart = io(0x1c, 0x30);
  if (ioStart > 0n) add("io", ioStart, io(0x1d, 0x32) | 0xfffn);
  const memory = (at: number) => BigInt(view.getUint16(at, true) & 0xfff0) << 16n;
  add("memory", memory(0x20), memory(0x22) | 0xf_ffffn);
  const high = (at: number) => BigInt(view.getUint32(at, true)) << 32n;
  add("prefetchable", high(0x28) | memory(0x24), high(0x2c) | memory(0x26) | 0xf_ffffn);
  return windows;
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
